"""The one table from a name to a restorer."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from torch import nn

from pipeline.config.learning import Restorer
from pipeline.models.unet import UNet

RESTORERS: dict[str, Callable[..., nn.Module]] = {
    "unet": UNet,
}


def build_restorer(settings: Restorer) -> nn.Module:
    """Return a freshly initialized restorer; draws from torch's global generator."""
    arguments: dict[str, Any] = asdict(settings)
    return RESTORERS[arguments.pop("name")](**arguments)


def parameter_count(network: nn.Module) -> int:
    """Return the number of trainable values."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
