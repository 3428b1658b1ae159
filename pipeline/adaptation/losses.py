"""Losses that several methods share."""

from torch import Tensor


def charbonnier(restored: Tensor, clean: Tensor) -> Tensor:
    """Return L_res = mean sqrt((restored - clean)^2 + 1e-6), a smooth absolute difference.

    Source: paper section 4 (restoration loss), Charbonnier et al. 1994, with eps = 1e-3.
    """
    return ((restored - clean).square() + 1e-6).sqrt().mean()
