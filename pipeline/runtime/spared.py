"""Libraries that other libraries import in vain: seconds at the start of every process."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

TORCHVISION = "torchvision.transforms.functional"
"""Of spandrel's networks two ask for it, which nobody builds here. It imports the compiler."""


@contextmanager
def spared(module: str) -> Iterator[None]:
    """Let nobody import a module within the block, unless it is there already.

    Whoever asks for it gets a stand-in, in which every name is None. So only what is never used
    may ask.
    """
    spares = module not in sys.modules
    if spares:
        sys.modules[module] = _StandIn(module)
    try:
        yield
    finally:
        if spares:
            del sys.modules[module]


class _StandIn(ModuleType):
    __version__ = "0"

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):  # what Python itself asks of a module
            raise AttributeError(name)
