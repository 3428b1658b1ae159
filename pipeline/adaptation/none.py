"""No adaptation ("vanilla"): synthetic pairs alone, the paper's lower baseline."""

import torch
from torch import Tensor, nn

from pipeline.adaptation.losses import charbonnier
from pipeline.batches import Batch
from pipeline.config.learning import Vanilla


class Adaptation(nn.Module):
    """Minimize L_res on synthetic pairs."""

    def __init__(self, restorer: nn.Module, settings: Vanilla) -> None:
        super().__init__()
        self.restorer = restorer

    def extra_learning_rates(self) -> dict[str, float]:
        """Return nothing: there is no other network."""
        return {}

    def draw(self, generator: torch.Generator, clean: Tensor) -> None:
        """Draw nothing."""

    def forward(self, batch: Batch, draws: None, progress: int) -> dict[str, Tensor]:
        """Return the restoration loss."""
        restoration = charbonnier(self.restorer(batch.synthetic), batch.clean)
        return {"total": restoration, "restoration": restoration}
