"""Losses that several methods share."""

import torch
from torch import Tensor, nn

from pipeline.datasets.batches import Batch
from pipeline.methods.method import Progress


def charbonnier(restored: Tensor, clean: Tensor) -> Tensor:
    """Return L_res = mean sqrt((restored - clean)^2 + 1e-6), a smooth absolute difference.

    Source: paper section 4 (restoration loss), Charbonnier et al. 1994, with eps = 1e-3.
    """
    return ((restored - clean).square() + 1e-6).sqrt().mean()


def watched_restoration(restorer: nn.Module, batch: Batch, progress: Progress) -> dict[str, Tensor]:
    """Return L_res on synthetic pairs as a term for the log, of who does not learn from it.

    Without gradient, and in the last step of each row of the log alone: a pass in every step would
    make the method look dearer than it is.

    To be called after the passes that are learnt from: autocast keeps the weights of the first.
    """
    if not progress.logged:
        return {}
    with torch.no_grad():
        return {"restoration": charbonnier(restorer(batch.synthetic), batch.clean)}
