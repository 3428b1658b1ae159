"""Lightning Fabric, without a library that it would import in vain."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def _hidden(library: str) -> Iterator[None]:
    """Let nobody import a library within the block, unless it is there already."""
    hidden = sys.modules.setdefault(library, None) is None  # type: ignore[arg-type]
    try:
        yield
    finally:
        if hidden:
            del sys.modules[library]


# Fabric asks torchmetrics for its version, for which all of it is imported, with scipy.stats and
# matplotlib: a third of the time that a training needs to start
with _hidden("torchmetrics"):
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.strategies.ddp import DDPStrategy

__all__ = ["DDPStrategy", "Fabric", "LightningEnvironment"]
