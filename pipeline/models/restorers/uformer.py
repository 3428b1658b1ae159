"""Uformer (Wang et al., CVPR 2022) from spandrel (MIT; the network of its authors, MIT).

restored = degraded + G(degraded). With modulators, as all three published sizes have them, and
without dropped paths. It knows squares alone, so others are padded to one and cut back.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.config.restorers import UformerSettings
from pipeline.runtime.spared import TORCHVISION, spared

with spared(TORCHVISION):
    from spandrel.architectures.Uformer import Uformer as SquareUformer
    from spandrel.architectures.Uformer.__arch.Uformer import LeWinTransformerBlock


def build(settings: UformerSettings) -> nn.Module:
    """Return the network."""
    network: nn.Module = Uformer(
        img_size=settings.factor,
        embed_dim=settings.channels,
        depths=list(settings.blocks),
        win_size=settings.window,
        drop_path_rate=0.0,
        modulator=True,
    )
    return network


class Uformer(SquareUformer):  # type: ignore[misc]
    """The library's network for any height and width that are multiples of its factor."""

    bottleneck = "conv"  # the level between encoder and decoder; its tokens are those of a square
    checkpointed = (LeWinTransformerBlock,)

    def forward(self, degraded: Tensor) -> Tensor:
        """Return the restored images, (batch, 3, height, width) like the degraded ones."""
        height, width = degraded.shape[2:]
        side = max(height, width)
        # repeated rims: reflection cannot more than double a side
        square = F.pad(degraded, (0, side - width, 0, side - height), mode="replicate")
        restored: Tensor = super().forward(square)
        return restored[:, :, :height, :width]
