"""The numbers that the paper published, as data beside the code: published.csv.

They are its authors' own, of other data, other hardware and another number of updates: the report
shows them apart and compares nothing with them.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

from pipeline.runtime.csv_files import read_csv

PAPER = "Denoising as Adaptation, ICLR 2025, arXiv 2406.18516"
FILE = Path(__file__).parent / "published.csv"
ABLATION = 4
"""Number of the paper's table of ablations."""


@dataclass(frozen=True)
class Published:
    """One row of the paper's tables 1 to 4; ``table`` is None where it gives it elsewhere.

    ``problem`` is contained in the names of our tasks of the same kind; ``ours`` is our name of the
    method, None if there is none. ``protocol`` in words, as far as the paper names it: none of
    pipeline/metrics.py. PSNR in dB; ``lpips`` is None where the paper gives none.
    """

    table: int | None
    data_set: str
    protocol: str
    problem: str
    method: str
    ours: str | None
    psnr: float
    ssim: float
    lpips: float | None

    @property
    def where(self) -> str:
        """The data set, and where in the paper the numbers stand."""
        return f"{self.data_set}, " + (f"Table {self.table}" if self.table else "beside the tables")


@functools.cache
def published() -> tuple[Published, ...]:
    """Return all rows, in the order of the paper."""
    return tuple(
        Published(
            table=int(row["table"]) if row["table"] else None,
            data_set=row["data_set"],
            protocol=row["protocol"],
            problem=row["problem"],
            method=row["method"],
            ours=row["ours"] or None,
            psnr=float(row["psnr"]),
            ssim=float(row["ssim"]),
            lpips=float(row["lpips"]) if row["lpips"] else None,
        )
        for row in read_csv(FILE)
    )


def of_task(task: str) -> list[Published]:
    """Return the rows of the tables of main results for the problem that a task is named after."""
    return [row for row in published() if row.table != ABLATION and row.problem in task]


def ablation() -> list[Published]:
    """Return the rows of the paper's ablation, in its order."""
    return [row for row in published() if row.table == ABLATION]
