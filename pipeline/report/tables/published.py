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
    """One row of the paper's tables 1 to 5.

    ``problem`` is contained in the names of our tasks of the same kind; ``ours`` is our name of the
    method, None if there is none: ``ap_bsn`` is only in the manner of AP-BSN and has not its
    numbers. ``protocol`` in words, as far as the paper names it: none of those of metrics.py. PSNR
    in dB; ``lpips`` is None where the paper gives none.

    ``parameters_m`` (millions) and ``giga_macs`` are of the restorer as the paper counts them
    (tables 5 and A2), None where they are not known here. Table A1, of the unpaired extension, is
    not known here either.
    """

    table: int
    data_set: str
    protocol: str
    problem: str
    method: str
    ours: str | None
    psnr: float
    ssim: float
    lpips: float | None
    parameters_m: float | None
    giga_macs: float | None

    @property
    def where(self) -> str:
        """The data set, and where in the paper the numbers stand."""
        return f"{self.data_set}, Table {self.table}"


@functools.cache
def published() -> tuple[Published, ...]:
    """Return all rows, in the order of the paper."""
    return tuple(
        Published(
            table=int(row["table"]),
            data_set=row["data_set"],
            protocol=row["protocol"],
            problem=row["problem"],
            method=row["method"],
            ours=row["ours"] or None,
            psnr=float(row["psnr"]),
            ssim=float(row["ssim"]),
            lpips=_known(row["lpips"]),
            parameters_m=_known(row["parameters_m"]),
            giga_macs=_known(row["giga_macs"]),
        )
        for row in read_csv(FILE)
    )


def _known(cell: str) -> float | None:
    return float(cell) if cell else None


def of_task(task: str) -> list[Published]:
    """Return the rows of the tables of main results for the problem that a task is named after."""
    return [row for row in published() if row.table != ABLATION and row.problem in task]


def ablation() -> list[Published]:
    """Return the rows of the paper's ablation, in its order."""
    return [row for row in published() if row.table == ABLATION]
