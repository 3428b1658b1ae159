"""Losses that several methods share."""

import torch
from torch import Tensor, nn

from pipeline.batches import Batch


def charbonnier(restored: Tensor, clean: Tensor) -> Tensor:
    """Return L_res = mean sqrt((restored - clean)^2 + 1e-6), a smooth absolute difference.

    Source: paper section 4 (restoration loss), Charbonnier et al. 1994, with eps = 1e-3.
    """
    return ((restored - clean).square() + 1e-6).sqrt().mean()


def watched_restoration(restorer: nn.Module, batch: Batch) -> Tensor:
    """Return L_res on synthetic pairs without gradient: for the log of who does not learn from it.

    To be called after the passes that are learnt from: autocast keeps the weights of the first.
    """
    with torch.no_grad():
        return charbonnier(restorer(batch.synthetic), batch.clean)
