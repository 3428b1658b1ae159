"""What every method is: a module around the restorer, with working defaults."""

import importlib
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from pipeline.config.methods import TrainedMethod
from pipeline.datasets.batches import Batch


@dataclass(frozen=True)
class Progress:
    """How far a method has come: the restorer update and the epoch under way, both from 1.

    An epoch goes once through the synthetic images. ``fraction`` is the part of the method's
    updates that is done, 0 to 1. ``logged``: a row of the log ends here, the time for terms that
    are looked at and not learnt from.
    """

    step: int
    epoch: int
    fraction: float
    logged: bool = True


@dataclass(frozen=True)
class Draws:
    """The random numbers of one training step; a method names the tensors, images first."""

    def part(self, images: slice) -> Self:
        """Return the draws of some images of the batch."""
        return type(self)(**{name: value[images] for name, value in vars(self).items()})

    def to(self, device: torch.device) -> Self:
        """Return the draws on another device."""
        return type(self)(**{name: value.to(device) for name, value in vars(self).items()})


class Method(nn.Module):
    """Base of all methods: holds the restorer; its other children are thrown away after training.

    Every weight of every child must take part in every step. ``gradient_norms`` is what a method
    measured during the last backward pass, for the log.
    """

    wants: tuple[str, ...] = ()
    """What batches must hold besides both domains: ``unpaired``, ``truth`` (bounds alone)."""

    def __init__(self, restorer: nn.Module, settings: TrainedMethod) -> None:
        super().__init__()
        self.settings = settings
        self.restorer = restorer
        self.gradient_norms: dict[str, Tensor] = {}

    def learning_rate_factors(self) -> dict[str, float]:
        """Return for each child beside the restorer its learning rate over the restorer's."""
        return {}

    def momentum(self) -> float | None:
        """Return beta1 of Adam of the other children; None is the restorer's."""
        return None

    def draw(self, generator: torch.Generator, shape: tuple[int, ...]) -> Draws | None:
        """Return the draws of one step for images of a shape (batch, 3, height, width)."""
        return None

    def forward(self, batch: Batch, draws: Any, progress: Progress) -> dict[str, Tensor]:
        """Return the terms of the loss by name; ``total`` is minimized, the others are logged."""
        raise NotImplementedError

    def measure(self, batch: Batch, generator: torch.Generator, span: float) -> dict[str, Any]:
        """Return what is to be known of the networks at the end, as JSON can hold it.

        Args:
            batch: some images of both domains.
            generator: the only source of randomness.
            span: white minus black.
        """
        return {}


def build_method(restorer: nn.Module, settings: TrainedMethod) -> Method:
    """Return the method that ``settings.kind`` names around a restorer; imports that one alone."""
    module = importlib.import_module(f"pipeline.methods.{settings.kind}")
    classes = [value for value in vars(module).values() if isinstance(value, type)]
    (found,) = (c for c in classes if issubclass(c, Method) and c.__module__ == module.__name__)
    return found(restorer, settings)
