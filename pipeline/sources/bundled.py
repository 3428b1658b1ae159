"""Photographs inside installed packages: real pictures without a download.

They are clean; the synthesize stage makes both the synthetic and the simulated real domain of
them. Scenes, not crops, are split, so nothing seen in training is tested.
"""

import hashlib
import importlib.resources
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.config.sources import BundledPhotograph, BundledSource
from pipeline.runtime.errors import UserError
from pipeline.sources.archives.reading import write_archive
from pipeline.sources.photographs import ARCHIVE, ImageFile, Photograph

FOLDERS = {
    "scikit-image": ("skimage", "data"),
    "matplotlib": ("matplotlib", "mpl-data/sample_data"),
}
"""Of each distribution the module, and where its photographs lie below it."""


@dataclass(frozen=True, slots=True)
class MiddleOf:
    """The middle of a photograph, a square or as much of it as there is."""

    whole: ImageFile
    side: int

    @property
    def name(self) -> str:
        """What to call it in messages and tables."""
        return self.whole.name

    def size(self) -> tuple[int, int]:
        """Return (height, width)."""
        height, width = self.whole.size()
        return min(height, self.side), min(width, self.side)

    def pixels(self) -> NDArray[np.uint8]:
        """Return the decoded part (height, width, 3) uint8 RGB."""
        whole = self.whole.pixels()
        height, width = self.size()
        top, left = (whole.shape[0] - height) // 2, (whole.shape[1] - width) // 2
        return whole[top : top + height, left : left + width]


def download(settings: BundledSource, folder: Path) -> None:
    """Copy the photographs from the installed packages into one archive.

    Raises:
        UserError: an installed package lacks a file or holds another version of it.
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
    listed = []
    for name, chosen in sorted(settings.photographs.items()):
        whole = ImageFile(folder / ARCHIVE, name)
        side = getattr(settings.middle, chosen.split)
        listed.append(
            Photograph(
                id=Path(name).stem,
                split=chosen.split,
                scene=chosen.scene,
                data_set=chosen.package,
                degraded=None,
                clean=whole if side is None else MiddleOf(whole, side),
            )
        )
    return listed


def _read(name: str, chosen: BundledPhotograph) -> bytes:
    package, folder = FOLDERS[chosen.package]
    file = importlib.resources.files(package) / folder / name
    if not file.is_file():
        raise UserError(
            f"{chosen.package} has no {name}; install the versions of requirements.lock"
        )
    content = file.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != chosen.sha256:
        raise UserError(
            f"{chosen.package}'s {name}: expected sha256 {chosen.sha256}, found {found};"
            " install the versions of requirements.lock"
        )
    return content
