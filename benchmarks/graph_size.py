"""How many jobs a graph has, and how long schedulers think about it before the first one.

Usage: python -m benchmarks.graph_size [override ...]      (default: preset=paper)

Composes the configuration into a copy of what git tracks, without data, counts the stages there and
times ``dvc status`` and ``snakemake -n``: seconds on the clock, and of processor time, which others
on the machine do not lengthen.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from pipeline.config.read import read_params
from pipeline.dry_run import trainings

COMMANDS = (("dvc", "status", "--quiet"), ("snakemake", "--dry-run", "--quiet"))


def measure(overrides: list[str], folder: Path) -> dict[str, tuple[float, float]]:
    """Return wall and processor seconds of each command."""
    copy_tracked(overrides, folder)
    times = {}
    for command in COMMANDS:
        started, used = time.monotonic(), children_seconds()
        # 'dvc status --quiet' tells by 1 that something changed
        run(list(command), folder, expected=(0, 1))
        times[" ".join(command)] = (time.monotonic() - started, children_seconds() - used)
    return times


def count_jobs(folder: Path) -> Counter[str]:
    """Return the number of jobs by the verb of their stage."""
    listed = run(["dvc", "stage", "list", "--name-only"], folder, expected=(0,))
    return Counter(name.partition("@")[0] for name in listed.split())


def count_trainings(folder: Path) -> int:
    """Return how many of the jobs train: without updates before it, a pretraining is none."""
    params = read_params(folder / "params.yaml")
    return len(trainings(params)) * len(params.tasks) * len(params.seeds)


def copy_tracked(overrides: list[str], folder: Path) -> None:
    """Clone what git tracks here into ``folder`` and compose a configuration there."""
    subprocess.run(["git", "clone", "--quiet", ".", str(folder)], check=True)
    run([sys.executable, "-m", "pipeline", "compose", *overrides], folder, expected=(0,))


def run(command: list[str], folder: Path, expected: tuple[int, ...]) -> str:
    """Run a command with this Python's folder first on the path; return what it printed.

    Raises:
        RuntimeError: its exit status is not as expected.
    """
    folders = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PATH": folders}, capture_output=True, text=True
    )
    if done.returncode not in expected:
        raise RuntimeError(f"{command}: {done.stdout}{done.stderr}")
    return done.stdout


def children_seconds() -> float:
    """Return the processor time of all ended child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def show(jobs: Counter[str], trained: int, times: dict[str, tuple[float, float]]) -> None:
    """Print the numbers of jobs and the times."""
    counted = ", ".join(f"{number} {verb}" for verb, number in jobs.items())
    print(f"{jobs.total()} jobs, {trained} of them trainings: {counted}")
    for command, (wall, processor) in times.items():
        print(f"{command:28} {wall:5.1f} s, {processor:5.1f} s of processor time")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "copy"
        times = measure(sys.argv[1:] or ["preset=paper"], folder)
        show(count_jobs(folder), count_trainings(folder), times)
