"""From a restorer's settings to the network."""

import importlib

from torch import nn

from pipeline.config.restorers import Restorer
from pipeline.errors import UserError


def build_restorer(settings: Restorer) -> nn.Module:
    """Return a freshly initialized restorer; draws from torch's global generator.

    It takes degraded images (batch, 3, height, width) and returns restored ones of that shape; its
    attribute ``factor`` says what both sides must be multiples of. The module named like it has a
    function ``build(settings)`` that returns the network; only that one is imported.

    Raises:
        UserError: a library that it comes from is not installed.
    """
    try:
        module = importlib.import_module(f"pipeline.models.{settings.name}")
    except ModuleNotFoundError as error:
        raise UserError(
            f"restorer.name: {settings.name} needs {error.name}; pip install '.[restorers]'"
        ) from None
    network = module.build(settings)
    network.factor = settings.factor
    restorer: nn.Module = network
    return restorer


def parameter_count(network: nn.Module) -> int:
    """Return the number of trainable values."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
