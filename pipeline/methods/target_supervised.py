"""Supervised training on real pairs: no method but the bound that none without truth can expect.

    L = L_res(y^_r, y_r)        y_r: the clean version of the real image x_r

Only where real training photographs have a truth, as the demo's simulated ones do and those of
SIDD, SPA-Data and RealBlur. No other method is given it: it lies in a file that is opened for this
one alone. It starts, like the others, from the restorer that was pretrained on synthetic pairs,
whose restoration loss is logged, not learnt from.
"""

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.config.methods import TargetSupervised
from pipeline.datasets.batches import Batch
from pipeline.methods import Progress
from pipeline.methods.losses import charbonnier, watched_restoration


class Adaptation(nn.Module):
    """The restorer alone."""

    wants: tuple[str, ...] = ("truth",)

    def __init__(self, restorer: nn.Module, settings: TargetSupervised) -> None:
        super().__init__()
        self.restorer = restorer
        self.gradient_norms: dict[str, Tensor] = {}

    def learning_rate_factors(self) -> dict[str, float]:
        """Return nothing: there is no other network."""
        return {}

    def draw(self, generator: torch.Generator, shape: tuple[int, ...]) -> None:
        """Draw nothing."""

    def forward(self, batch: Batch, draws: None, progress: Progress) -> dict[str, Tensor]:
        """Return the loss on real pairs and, for the log, that on synthetic ones."""
        assert batch.truth is not None  # ``wants`` says so
        supervised = charbonnier(self.restorer(batch.real), batch.truth)
        return {
            "total": supervised,
            "real_restoration": supervised,
            **watched_restoration(self.restorer, batch, progress),
        }

    def measure(self, batch: Batch, generator: torch.Generator, span: float) -> dict[str, Any]:
        """Return nothing: there is no other network."""
        return {}
