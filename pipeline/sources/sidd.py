"""SIDD: noise of five phone cameras (Abdelhamed et al., CVPR 2018).

Training: sRGB pairs of SIDD-Medium in its own and in Restormer's layout, or SIDD-Small:
``<scene>/[NNNN_]{NOISY,GT}_SRGB_01{0,1}.PNG``. Test: the validation blocks, MATLAB files with one
variable named like the file, uint8 (scenes, blocks, height, width, 3).
"""

import functools
import io
import re
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.sources import FetchedSource
from pipeline.runtime.errors import UserError
from pipeline.sources.pairs import PAIR, Found, named
from pipeline.sources.photographs import ImageFile, Photograph, files_in

_PAIR = re.compile(
    r"(?P<scene>[^/]+)/(?:\d{4}_)?(?P<role>NOISY|GT)_SRGB_(?P<shot>\d{3})\.png", re.IGNORECASE
)
_BLOCKS = {"degraded": "ValidationNoisyBlocksSrgb", "clean": "ValidationGtBlocksSrgb"}


def photographs(settings: FetchedSource, folder: Path) -> list[Photograph]:
    """Return noisy photographs without truth and the validation blocks with it.

    Raises:
        UserError: a partner is missing, or a file of blocks is damaged or unlike the other.
    """
    files = files_in(folder)
    return named(files, _found, PAIR) + _validation(files)


def _found(file: ImageFile) -> Found | None:
    match = _PAIR.search(file.name)
    if match is None:
        return None
    role = "clean" if match["role"].upper() == "GT" else "degraded"
    return Found(file, role, f"{match['scene']}/{match['shot']}", match["scene"], "real", "SIDD")


def _validation(files: list[ImageFile]) -> list[Photograph]:
    by_role = {
        role: file
        for role, variable in _BLOCKS.items()
        for file in files
        if Path(file.name).stem.lower() == variable.lower()
    }
    if not by_role:
        return []
    if len(by_role) == 1:
        lacking = _BLOCKS["clean" if "degraded" in by_role else "degraded"]
        raise UserError(f"SIDD validation: {lacking}.mat is missing beside its partner")
    shapes = {role: _blocks(file, _BLOCKS[role]).shape for role, file in by_role.items()}
    if shapes["degraded"] != shapes["clean"]:
        raise UserError(f"SIDD validation: blocks of two shapes, {shapes}; fetch both anew")
    scenes, blocks, height, width, _ = shapes["clean"]
    return [
        Photograph(
            f"validation_{scene:02d}/{block:02d}",
            "test",
            f"validation_{scene:02d}",
            "SIDD validation",
            *(
                Block(by_role[role], _BLOCKS[role], scene, block, (height, width))
                for role in ("degraded", "clean")
            ),
        )
        for scene in range(scenes)
        for block in range(blocks)
    ]


@dataclass(frozen=True)
class Block:
    """One image of a file of blocks."""

    file: ImageFile
    variable: str
    scene: int
    block: int
    shape: tuple[int, int]

    @property
    def name(self) -> str:
        """The file and the place in it."""
        return f"{self.file.name}[{self.scene}, {self.block}]"

    def size(self) -> tuple[int, int]:
        """Return (height, width)."""
        return self.shape

    def pixels(self) -> NDArray[np.uint8]:
        """Return the image (height, width, 3) uint8 RGB."""
        return np.ascontiguousarray(_blocks(self.file, self.variable)[self.scene, self.block])


_reading = threading.Lock()


def _blocks(file: ImageFile, variable: str) -> NDArray[np.uint8]:
    with _reading:  # 250 MB: never twice at the same time
        return _read(file, variable)


@functools.lru_cache(maxsize=1)
def _read(file: ImageFile, variable: str) -> NDArray[np.uint8]:
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    damage = (MatReadError, ValueError, TypeError, OSError, KeyError, NotImplementedError)
    try:
        variables: dict[str, Any] = loadmat(io.BytesIO(file.content()), variable_names=[variable])
    except (*damage, zlib.error) as error:
        raise UserError(f"{file.name}: no MATLAB file of version 5 ({error})") from None
    values = variables.get(variable)
    if values is None or values.ndim != 5 or values.shape[4] != 3 or values.dtype != np.uint8:
        found = "no such variable" if values is None else f"{values.dtype} {values.shape}"
        raise UserError(
            f"{file.name}: expected {variable} as uint8 (scenes, blocks, height, width, 3),"
            f" found {found}"
        )
    # MATLAB's order makes each block a walk through the whole file
    return np.ascontiguousarray(values)
