"""No adaptation ("vanilla"): synthetic pairs alone, the paper's lower baseline."""

from torch import Tensor

from pipeline.datasets.batches import Batch
from pipeline.methods.losses import charbonnier
from pipeline.methods.method import Method, Progress


class Vanilla(Method):
    """Minimize L_res on synthetic pairs."""

    def forward(self, batch: Batch, draws: None, progress: Progress) -> dict[str, Tensor]:
        """Return the restoration loss."""
        restoration = charbonnier(self.restorer(batch.synthetic), batch.clean)
        return {"total": restoration, "restoration": restoration}
