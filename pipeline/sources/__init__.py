"""Where photographs come from: one module per kind of source, named as in ``source.kind``.

``download(settings, folder)`` leaves archives in a folder; ``photographs(settings, folder)`` lists
what they hold. Published data sets share one ``download``, in ``pipeline/sources/fetch``. A new
kind is one module here and its settings in ``pipeline/config/data.py``.
"""

import importlib
from pathlib import Path
from types import ModuleType

from pipeline.config.sources import FetchedSource, Source


def source_module(kind: str) -> ModuleType:
    """Return the module of a kind of source; only that one is imported."""
    return importlib.import_module(f"{__name__}.{kind}")


def download(settings: Source, folder: Path) -> None:
    """Leave the archives of a source in a folder."""
    kind = "fetch" if isinstance(settings, FetchedSource) else settings.kind
    source_module(kind).download(settings, folder)
