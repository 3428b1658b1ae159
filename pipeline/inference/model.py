"""Trained models, read from their files."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from pipeline.config.build import Interval, build
from pipeline.config.restorers import RestorerSettings
from pipeline.config.running import Evaluate
from pipeline.device import describe_device, prepare_torch, use_precision
from pipeline.images.pixels import Image, from_range, to_range
from pipeline.inference.tiled import restore, restore_batch
from pipeline.models.build import skeleton
from pipeline.models.weights import load_tensors
from pipeline.runtime.errors import UserError


def load_model(path: Path, settings: Evaluate) -> "Model":
    """Return a trained model that restores images, on a GPU if there is one.

    Raises:
        UserError: the file is missing, damaged, or holds other weights than its facts say.
    """
    prepare_torch(settings.threads)
    return Model(on_device(load_network(path)[0]), settings)


class Model:
    """A restorer with the settings of how it restores: one image, or several of equal size."""

    def __init__(self, network: nn.Module, settings: Evaluate) -> None:
        self.network, self.settings = network, settings
        self.precision = use_precision(settings.precision)

    def __call__(self, image: Image) -> Image:
        """Return the restored image, see ``restore``."""
        tile, overlap = self.settings.tile, self.settings.tile_overlap
        return restore(self.network, image, tile, overlap, self.precision)

    def restore_equal(self, images: list[Image]) -> list[Image]:
        """Return restored images of one size: at once, or one by one in tiles if they are large."""
        if max(images[0].shape[:2]) > self.settings.tile:
            return [self(image) for image in images]
        device = next(self.network.parameters()).device
        return list(restore_batch(self.network, np.stack(images), self.precision, device))

    def facts(self) -> dict[str, Any]:
        """Return what its results are made with: other precisions and devices, other last digits.

        ``precision`` is the one in use, never 'auto'.
        """
        return {
            "precision": self.precision,
            "device": describe_device(next(self.network.parameters()).device),
        }


def load_network(path: Path) -> tuple["InRange", dict[str, Any]]:
    """Return a trained restorer and the facts that travel with it.

    The weights' shapes are compared before any memory is taken for the network: a file of a few
    bytes may name one of many gigabytes. One that has far more weights is not even sketched, which
    takes minutes where it has hundreds of layers.

    Raises:
        UserError: the file is missing, damaged, or holds other weights than its facts say.
    """
    try:
        tensors, facts = load_tensors(path)
    except (RecursionError, OSError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    if not isinstance(facts, dict):
        raise UserError(f"{path}: its facts are no names and values; not written by this project")
    settings = build(RestorerSettings, facts.get("restorer"), f"{path}: restorer")
    black, white = build(Interval, facts.get("image_range"), f"{path}: image_range")
    if black == white or not math.isfinite(white - black):
        raise UserError(
            f"{path}: image_range: found [{black}, {white}], expected black below white"
        )
    held = sum(value.numel() for value in tensors.values())
    try:
        with weights_limited(2 * held):  # twice: a network may make weights that it does not keep
            restorer = skeleton(settings)
        restorer.load_state_dict(
            {
                # copied: in a file they lie anywhere, and last digits depend on the place in memory
                name: (value.float() if value.is_floating_point() else value).clone()
                for name, value in tensors.items()
            },
            assign=True,
        )
    except TooLarge:
        raise UserError(
            f"{path}: weights of another network: found {held:,} values, expected far more"
        ) from None
    except RuntimeError as error:
        lines = " ".join(str(error).split())
        raise UserError(f"{path}: weights of another network: {lines[:200]}") from None
    return InRange(restorer.requires_grad_(False), (black, white)).eval(), facts


class TooLarge(Exception):
    """A network has more weights than were allowed."""


@contextmanager
def weights_limited(at_most: int) -> Iterator[None]:
    """Let networks that are built in it make weights of so many values in all.

    Raises:
        TooLarge: there are more; building ends at once.
    """
    made = 0

    def count(module: nn.Module, name: str, weight: nn.Parameter) -> None:
        nonlocal made
        made += weight.numel()
        if made > at_most:
            raise TooLarge

    counting = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        counting.remove()


def on_device(network: nn.Module) -> nn.Module:
    """Return the network on a GPU if there is one, in the memory order that is fastest."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return network.to(device).to(memory_format=torch.channels_last)


class InRange(nn.Module):
    """A restorer of images in [0, 1], whatever range its network works in."""

    def __init__(self, restorer: nn.Module, image_range: tuple[float, float]) -> None:
        super().__init__()
        self.restorer, self.image_range = restorer, image_range
        self.factor: int = restorer.factor  # type: ignore[assignment]

    def forward(self, degraded: Tensor) -> Tensor:
        """Return the restored images, (batch, 3, height, width) like the degraded ones."""
        restored = self.restorer(to_range(degraded, self.image_range))
        return from_range(restored.float(), self.image_range)
