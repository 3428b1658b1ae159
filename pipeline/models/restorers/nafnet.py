"""NAFNet (Chen et al., ECCV 2022) from spandrel (MIT; the network of megvii, MIT).

restored = degraded + G(degraded).
"""

from spandrel.architectures.NAFNet import NAFNet
from spandrel.architectures.NAFNet.__arch.NAFNet_arch import NAFBlock
from torch import nn

from pipeline.config.restorers import NAFNetSettings


def build(settings: NAFNetSettings) -> nn.Module:
    """Return the network."""
    network = NAFNet(
        width=settings.channels,
        enc_blk_nums=list(settings.encoder_blocks),
        middle_blk_num=settings.middle_blocks,
        dec_blk_nums=list(settings.decoder_blocks),
    )
    network.bottleneck = "middle_blks"
    network.checkpointed = (NAFBlock,)
    restorer: nn.Module = network
    return restorer
