"""What every section of the benchmark is given, and the time that it has."""

import importlib.util
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

Row = dict[str, Any]
"""One line of a table: column -> value. ``failed`` true: a check did not hold."""

PACKAGES = {
    "torch": "torch", "lightning_fabric": "lightning-fabric", "diffusers": "diffusers",
    "h5py": "h5py", "hydra": "hydra-core", "numpy": "numpy", "omegaconf": "omegaconf",
    "PIL": "pillow", "rich": "rich", "safetensors": "safetensors", "scipy": "scipy",
    "skimage": "scikit-image",
}  # fmt: skip
"""Modules that the sections import, and the distributions that they come in."""


@dataclass(frozen=True)
class Setup:
    """Where to measure, how large, and until when (of ``time.monotonic``)."""

    device: Literal["cuda", "cpu"]
    size: Literal["paper", "tiny"]
    folder: Path
    """For what sections write and nobody keeps."""
    ends: float

    @property
    def large(self) -> bool:
        """Whether the networks are the paper's."""
        return self.size == "paper"

    def left(self) -> float:
        """Return the seconds that the section still has."""
        return self.ends - time.monotonic()


@dataclass(frozen=True)
class Section:
    """A table of the result: its title, a sentence about it, the share of the time, the work.

    ``work`` yields a row as soon as it is measured.
    """

    title: str
    about: str
    share: float
    work: Callable[[Setup, "Findings"], Iterator[Row]]


Findings = dict[str, list[Row]]
"""Rows of the sections that are done, by title: later sections may use them."""


def missing() -> list[str]:
    """Return the distributions that are not installed here."""
    return sorted(
        name for module, name in PACKAGES.items() if importlib.util.find_spec(module) is None
    )


def how_to_carry(names: list[str]) -> str:
    """Return in one line how to bring packages to a machine without a network."""
    wanted = " ".join(names)
    return (
        f"not installed: {wanted}; where there is a network: 'pip download --dest wheels {wanted}';"
        f" here: 'pip install --no-index --find-links wheels {wanted}'"
    )
