"""Restormer (Zamir et al., CVPR 2022) from deepinv (BSD 3-clause).

restored = degraded + G(degraded). Freshly initialized: nothing is downloaded.
"""

from deepinv.models import Restormer
from deepinv.models.restormer import TransformerBlock
from torch import nn

from pipeline.config.restorers import RestormerSettings


def build(settings: RestormerSettings) -> nn.Module:
    """Return the network."""
    network = Restormer(
        dim=settings.channels,
        num_blocks=settings.blocks,
        num_refinement_blocks=settings.refinement_blocks,
        heads=settings.heads,
        ffn_expansion_factor=settings.expansion,
        LayerNorm_type="WithBias",
        pretrained=None,
    )
    network.bottleneck = "latent"
    network.checkpointed = (TransformerBlock,)
    restorer: nn.Module = network
    return restorer
