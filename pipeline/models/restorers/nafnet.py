"""NAFNet (Chen et al., ECCV 2022) from spandrel (MIT; the network of megvii, MIT).

restored = degraded + G(degraded).
"""

from torch import Tensor, nn

from pipeline.config.restorers import NAFNetSettings
from pipeline.runtime.spared import TORCHVISION, spared

with spared(TORCHVISION):
    from spandrel.architectures.NAFNet import NAFNet
    from spandrel.architectures.NAFNet.__arch.NAFNet_arch import NAFBlock

EPSILON = 1e-6
"""Added to a variance by the library's norms."""


class ChannelNorm(nn.LayerNorm):
    """A pixel's norm over its channels, with weights of the same names as the library's.

    The library writes it as nine operations with a backward pass of their own: it is slower, and
    torch.compile cannot look into it.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return images (batch, channels, height, width), normalized."""
        return super().forward(input.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def build(settings: NAFNetSettings) -> nn.Module:
    """Return the network."""
    network = NAFNet(
        width=settings.channels,
        enc_blk_nums=list(settings.encoder_blocks),
        middle_blk_num=settings.middle_blocks,
        dec_blk_nums=list(settings.decoder_blocks),
    )
    for block in network.modules():
        if isinstance(block, NAFBlock):
            channels = block.conv1.in_channels
            block.norm1, block.norm2 = (ChannelNorm(channels, EPSILON) for _ in range(2))
    network.bottleneck = "middle_blks"
    network.checkpointed = (NAFBlock,)
    restorer: nn.Module = network
    return restorer
