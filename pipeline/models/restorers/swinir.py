"""SwinIR (Liang et al., ICCVW 2021) from spandrel (MIT; the network of its authors, Apache 2.0).

restored = degraded + G(degraded), no change of size. Without dropped paths.
"""

from torch import nn

from pipeline.config.restorers import SwinIRSettings
from pipeline.runtime.spared import TORCHVISION, spared

with spared(TORCHVISION):
    from spandrel.architectures.SwinIR import SwinIR
    from spandrel.architectures.SwinIR.__arch.SwinIR import SwinTransformerBlock


def build(settings: SwinIRSettings) -> nn.Module:
    """Return the network."""
    network = SwinIR(
        img_size=2 * settings.window,  # shapes one buffer; at one window no block would shift
        upscale=1,
        embed_dim=settings.channels,
        depths=list(settings.blocks),
        num_heads=list(settings.heads),
        window_size=settings.window,
        mlp_ratio=settings.mlp_ratio,
        drop_path_rate=0.0,
    )
    network.checkpointed = (SwinTransformerBlock,)
    restorer: nn.Module = network
    return restorer
