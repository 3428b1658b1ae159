"""No adaptation ("vanilla"): synthetic pairs alone, the paper's lower baseline."""

from typing import Any

import torch
from torch import Tensor, nn

from pipeline.config.learning import Vanilla
from pipeline.datasets.batches import Batch
from pipeline.methods import Progress
from pipeline.methods.losses import charbonnier


class Adaptation(nn.Module):
    """Minimize L_res on synthetic pairs."""

    wants: tuple[str, ...] = ()

    def __init__(self, restorer: nn.Module, settings: Vanilla) -> None:
        super().__init__()
        self.restorer = restorer
        self.gradient_norms: dict[str, Tensor] = {}

    def learning_rate_factors(self) -> dict[str, float]:
        """Return nothing: there is no other network."""
        return {}

    def draw(self, generator: torch.Generator, shape: tuple[int, ...]) -> None:
        """Draw nothing."""

    def forward(self, batch: Batch, draws: None, progress: Progress) -> dict[str, Tensor]:
        """Return the restoration loss."""
        restoration = charbonnier(self.restorer(batch.synthetic), batch.clean)
        return {"total": restoration, "restoration": restoration}

    def measure(self, batch: Batch, generator: torch.Generator, span: float) -> dict[str, Any]:
        """Return nothing: there is no other network."""
        return {}
