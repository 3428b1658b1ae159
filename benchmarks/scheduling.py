"""What several jobs at once gain, and what Snakemake costs beside DVC.

Usage: python -m benchmarks.scheduling [--cores 2] [--repeats 1] [override ...]

Default: preset=tiny, where stages take seconds, so that the schedulers' own work shows; with
preset=demo trainings do. Runs ``dvc repro`` and ``snakemake --cores N`` in turn, each in a fresh
copy of what git tracks without any result, and prints seconds on the clock and of processor time.
Trainings run side by side if ``train.threads`` of each fit into the cores together.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.graph_size import children_seconds, copy_tracked, run

Times = list[tuple[float, float]]


def measure(overrides: list[str], cores: int, repeats: int, folder: Path) -> dict[str, Times]:
    """Return wall and processor seconds of every run of each command."""
    commands = (["dvc", "repro", "--quiet"], ["snakemake", "--cores", str(cores), "--quiet"])
    times: dict[str, Times] = {" ".join(command[:-1]): [] for command in commands}
    for _ in range(repeats):
        for command in commands:
            copy_tracked(overrides, folder)
            (folder / "dvc.lock").unlink(missing_ok=True)
            shutil.rmtree(folder / "reports", ignore_errors=True)
            started, used = time.monotonic(), children_seconds()
            run(command, folder, expected=(0,))
            row = (time.monotonic() - started, children_seconds() - used)
            times[" ".join(command[:-1])].append(row)
            shutil.rmtree(folder)
    return times


def show(times: dict[str, Times]) -> None:
    """Print medians, and what Snakemake's are divided by DVC's."""
    medians = [[statistics.median(column) for column in zip(*rows, strict=True)]
               for rows in times.values()]  # fmt: skip
    for command, (wall, processor) in zip(times, medians, strict=True):
        print(f"{command:24} {wall:7.1f} s, {processor:7.1f} s of processor time")
    wall, processor = (after / before for before, after in zip(*medians, strict=True))
    print(f"{'snakemake / dvc repro':24} {wall:7.2f}    {processor:7.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--cores", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("overrides", nargs="*", default=["preset=tiny"])
    given = parser.parse_args(sys.argv[1:])
    with tempfile.TemporaryDirectory() as name:
        show(measure(given.overrides, given.cores, given.repeats, Path(name) / "copy"))
