"""Photographs inside the scikit-image wheel: real pictures without a download.

They are clean; the synthesize stage makes both the synthetic and the simulated real domain of
them. Scenes, not crops, are split, so nothing seen in training is tested.
"""

import hashlib
import importlib.resources
from pathlib import Path

from pipeline.config.sources import BundledPhotograph, BundledSource
from pipeline.runtime.errors import UserError
from pipeline.sources.archives.reading import write_archive
from pipeline.sources.photographs import ARCHIVE, ImageFile, Photograph


def download(settings: BundledSource, folder: Path) -> None:
    """Copy the photographs from the installed package into one archive.

    Raises:
        UserError: the installed scikit-image lacks a file or holds another version of it.
    """
    write_archive(
        folder / ARCHIVE,
        [
            (name, lambda name=name, chosen=chosen: _read(name, chosen))  # type: ignore[misc]
            for name, chosen in settings.photographs.items()
        ],
    )


def photographs(settings: BundledSource, folder: Path) -> list[Photograph]:
    """Return the archive's photographs, all of them clean."""
    return [
        Photograph(
            id=Path(name).stem,
            split=chosen.split,
            scene=chosen.scene,
            data_set="scikit-image",
            degraded=None,
            clean=ImageFile(folder / ARCHIVE, name),
        )
        for name, chosen in sorted(settings.photographs.items())
    ]


def _read(name: str, chosen: BundledPhotograph) -> bytes:
    file = importlib.resources.files("skimage") / "data" / name
    if not file.is_file():
        raise UserError(f"scikit-image has no {name}; install the versions of requirements.lock")
    content = file.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != chosen.sha256:
        raise UserError(
            f"scikit-image's {name}: expected sha256 {chosen.sha256}, found {found};"
            " install the versions of requirements.lock"
        )
    return content
