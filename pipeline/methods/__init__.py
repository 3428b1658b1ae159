"""How a restorer is adapted to real photographs: one file per method, all of one shape.

A method is a module of this package named as in ``method.kind``. Its class ``Adaptation`` is
built from ``(restorer, settings)`` and

* holds its networks as children, the restorer as ``restorer``;
* names the other children in ``learning_rate_factors()``, each with its learning rate as a multiple
  of the restorer's; their Adam has beta1 ``momentum`` where the method has such an attribute, else
  the restorer's;
* names in ``wants`` what batches must hold besides both domains: ``unpaired`` clean images, or the
  ``truth`` of the real ones (for upper bounds alone);
* makes the random draws of one step in ``draw(generator, shape)``, an object with ``part(slice)``
  and ``to(device)``, or None;
* returns the named terms of the loss in ``forward(batch, draws, progress)``, the one to be
  minimized as ``total``;
* leaves in ``gradient_norms`` what it measured during the backward pass, for the log;
* returns from ``measure(batch, generator, span)`` what is to be known of the networks at
  the end; ``span`` is white minus black.

Every child but the restorer is thrown away after training. A new method is one file here and its
settings in ``pipeline/config/methods.py``; ``docs/extending.md`` has an example.
"""

import importlib
from dataclasses import dataclass
from typing import Any

from torch import nn

from pipeline.config.learning import TrainedMethod


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


def build_adaptation(restorer: nn.Module, settings: TrainedMethod) -> Any:
    """Return the adaptation module of a method around a restorer; imports that method alone."""
    method = importlib.import_module(f"{__name__}.{settings.kind}")
    return method.Adaptation(restorer, settings)
