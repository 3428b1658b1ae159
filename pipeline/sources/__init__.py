"""Where photographs come from: one module per kind of source, named as in ``source.kind``.

``download(settings, folder)`` leaves archives in a folder; ``photographs(settings, folder)`` lists
what they hold. A new kind is one module here and its settings in ``pipeline/config/data.py``.
"""

import importlib
from types import ModuleType


def source_module(kind: str) -> ModuleType:
    """Return the module of a kind of source; only that one is imported."""
    return importlib.import_module(f"{__name__}.{kind}")
