"""What commands take that have nothing to do, and what DVC adds to the stages of a run.

Usage: python -m benchmarks.startup [--repeats 3] [override ...]      (default: preset=tiny)

Reproduces the graph once in a copy of what git tracks, then prints the median seconds of each
command there. The first two lines are the clock of that ``dvc repro`` and the sum of its stages, as
they measured themselves.
"""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.graph_size import copy_tracked, run
from pipeline.runtime.paths import COSTS

COMMANDS = {
    "dvc repro": ["dvc", "repro", "--quiet"],
    "dvc status": ["dvc", "status", "--quiet"],
    "snakemake -n": ["snakemake", "--dry-run", "--quiet"],
    "restore --help": [sys.executable, "-m", "pipeline", "restore", "--help"],
    "make reproduce": ["make", "reproduce"],
}


def measure(overrides: list[str], repeats: int, folder: Path) -> dict[str, float]:
    """Return the median seconds of each command, and of the whole graph and its stages."""
    copy_tracked(overrides, folder)
    environment = Path(sys.executable).parents[1]
    (folder / ".venv").symlink_to(environment)  # nothing is installed: it has the mark of setup
    (folder / "dvc.lock").unlink(missing_ok=True)
    shutil.rmtree(folder / "reports", ignore_errors=True)
    found = {"dvc repro, the whole graph": seconds_of(COMMANDS["dvc repro"], folder)}
    costs = [json.loads(path.read_text()) for path in (folder / COSTS).glob("*.json")]
    found["its stages, as they say"] = sum(cost["wall_s"] for cost in costs)
    for name, command in COMMANDS.items():
        times = [seconds_of(command, folder) for _ in range(repeats)]
        found[name] = statistics.median(times)
    return found


def seconds_of(command: list[str], folder: Path) -> float:
    """Run a command; return its seconds on the clock."""
    begun = time.monotonic()
    run(command, folder, expected=(0,))
    return time.monotonic() - begun


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("overrides", nargs="*", default=["preset=tiny"])
    given = parser.parse_args()
    os.environ.pop("MAKEFLAGS", None)
    with tempfile.TemporaryDirectory() as name:
        found = measure(given.overrides, given.repeats, Path(name) / "copy")
    for what, seconds in found.items():
        print(f"{what:28} {seconds:6.1f} s")


if __name__ == "__main__":
    main()
