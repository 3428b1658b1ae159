"""From a restorer's settings to the network."""

import copy
import importlib
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode

from pipeline.config.restorers import RestorerSettings
from pipeline.config.running import Initialization
from pipeline.runtime.errors import UserError

COUNTED_SIDE = 128
"""Of the image on which multiplications are counted, as in the paper."""


def build_restorer(settings: RestorerSettings) -> nn.Module:
    """Return a freshly initialized restorer; draws from torch's global generator.

    It takes degraded images (batch, 3, height, width) and returns restored ones of that shape; its
    attribute ``factor`` says what both sides must be multiples of. The module named like it has a
    function ``build(settings)`` that returns the network; only that one is imported.

    Raises:
        UserError: a library that it comes from is not installed.
    """
    try:
        module = importlib.import_module(f"pipeline.models.restorers.{settings.kind}")
    except ModuleNotFoundError as error:
        raise UserError(
            f"restorer.kind: {settings.kind} needs {error.name}; pip install '.[restorers]'"
        ) from None
    network = module.build(settings)
    network.factor = settings.factor
    restorer: nn.Module = network
    return restorer


def initialize(network: nn.Module, how: Initialization, without: nn.Module | None = None) -> None:
    """Draw first weights from torch's global generator, for the network or all but a part of it.

    ``default`` keeps what the layers drew as they were built. ``kaiming``: weights of convolutions
    and linear maps are normal with variance 2 / inputs (He et al. 2015), their biases 0, as the
    authors' release has it (``init_type`` of its configuration, ``core/base_network.py``). A layer
    that was built as zeros stays so: its network starts as the identity, as generators do.
    """
    if how == "default" or network is without:
        return
    if isinstance(network, nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
        if network.weight.any():
            nn.init.kaiming_normal_(network.weight)
        if network.bias is not None:
            nn.init.zeros_(network.bias)
    for part in network.children():
        initialize(part, how, without)


def skeleton(settings: RestorerSettings) -> nn.Module:
    """Return the restorer with names and shapes of its weights, but no memory for them.

    Raises:
        UserError: see ``build_restorer``.
    """
    with torch.device("meta"), _LinspaceInMemory():
        return build_restorer(settings)


def parameter_count(network: nn.Module) -> int:
    """Return the number of trainable values."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def giga_macs(network: nn.Module) -> float:
    """Return the multiplications of a restorer for 128x128 pixels, in 1e9.

    Those of convolutions and matrix products. A restorer that takes no image of that size is
    counted on the next larger one, in proportion.
    """
    factor = int(network.factor)  # type: ignore[arg-type]
    side = -(-COUNTED_SIDE // factor) * factor
    # without values: shapes are all that counts
    shape = copy.deepcopy(network).to("meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        shape(torch.zeros(1, 3, side, side, device="meta"))
    return float(counter.get_total_flops() / 2e9 * (COUNTED_SIDE / side) ** 2)


class _LinspaceInMemory(TorchFunctionMode):
    """Libraries read numbers from ``linspace`` while they build; on the meta device are none."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        in_memory = {"device": "cpu"} if func is torch.linspace else {}
        return func(*args, **{**(kwargs or {}), **in_memory})
