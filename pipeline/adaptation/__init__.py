"""How a restorer is adapted to real photographs: one file per method, all of one shape.

A method is a module of this package named as in ``method.adaptation``. Its class ``Adaptation`` is
built from ``(restorer, settings)`` and

* holds its networks as children, the restorer as ``restorer``;
* names the learning rate of every other child in ``extra_learning_rates()``;
* makes the random draws of one step in ``draw(generator, clean)``;
* returns the named terms of the loss in ``forward(batch, draws, progress)``, the one to be
  minimized as ``total``. ``progress`` counts the steps since the method started.

Every child but the restorer is thrown away after training. A new method is one file here and its
settings in ``pipeline/config/learning.py``; nothing that was trained before has to run again.
"""

import importlib
from typing import Any

from torch import nn

from pipeline.config.learning import Method


def build_adaptation(restorer: nn.Module, settings: Method) -> Any:
    """Return the adaptation module of a method around a restorer; imports that method alone."""
    method = importlib.import_module(f"{__name__}.{settings.adaptation}")
    return method.Adaptation(restorer, settings)
