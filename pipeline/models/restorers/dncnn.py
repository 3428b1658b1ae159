"""DnCNN (Zhang et al., TIP 2017) from spandrel (MIT; the network of KAIR, MIT).

Without batch normalization, as its authors' later networks: moving statistics would mix the two
domains, and shares of a batch would no longer equal the whole. restored = degraded - G(degraded).
"""

from torch import nn

from pipeline.config.restorers import DnCNNSettings
from pipeline.runtime.spared import TORCHVISION, spared

with spared(TORCHVISION):
    from spandrel.architectures.DnCNN import DnCNN


def build(settings: DnCNNSettings) -> nn.Module:
    """Return the network."""
    network = DnCNN(in_nc=3, out_nc=3, nc=settings.channels, nb=settings.layers, act_mode="R")
    network.checkpointed = (nn.Sequential,)
    restorer: nn.Module = network
    return restorer
