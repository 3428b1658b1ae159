"""Supervised training on real pairs: no method but the bound that none without truth can expect.

    L = L_res(y^_r, y_r)        y_r: the clean version of the real image x_r

Only where real training photographs have a truth, as the demo's simulated ones do and those of
SIDD, SPA-Data and RealBlur. No other method is given it: it lies in a file that is opened for this
one alone. It starts, like the others, from the restorer that was pretrained on synthetic pairs,
whose restoration loss is logged, not learnt from.
"""

from torch import Tensor

from pipeline.datasets.batches import Batch
from pipeline.methods.losses import charbonnier, watched_restoration
from pipeline.methods.method import Method, Progress


class TargetSupervised(Method):
    """The restorer alone."""

    wants = ("truth",)

    def forward(self, batch: Batch, draws: None, progress: Progress) -> dict[str, Tensor]:
        """Return the loss on real pairs and, for the log, that on synthetic ones."""
        assert batch.truth is not None  # ``wants`` says so
        supervised = charbonnier(self.restorer(batch.real), batch.truth)
        return {
            "total": supervised,
            "real_restoration": supervised,
            **watched_restoration(self.restorer, batch, progress),
        }
