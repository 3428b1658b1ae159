"""How long schedulers think about a large graph before the first job.

Usage: python -m benchmarks.graph_size [override ...]      (default: preset=paper)

Composes the configuration into a copy of what git tracks, without data, and times there
``dvc status`` and ``snakemake -n``: seconds on the clock, and of processor time, which others on
the machine do not lengthen.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMANDS = (("dvc", "status", "--quiet"), ("snakemake", "--dry-run", "--quiet"))


def measure(overrides: list[str], folder: Path) -> dict[str, tuple[float, float]]:
    """Return wall and processor seconds of each command."""
    subprocess.run(["git", "clone", "--quiet", ".", str(folder)], check=True)
    _run([sys.executable, "-m", "pipeline.compose", *overrides], folder)
    times = {}
    for command in COMMANDS:
        started, used = time.monotonic(), _children_seconds()
        _run(list(command), folder)
        times[" ".join(command)] = (time.monotonic() - started, _children_seconds() - used)
    return times


def _run(command: list[str], folder: Path) -> None:
    folders = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=folder, env=os.environ | {"PATH": folders}, capture_output=True, text=True
    )
    if done.returncode not in (0, 1):  # 'dvc status --quiet' tells by 1 that something changed
        raise RuntimeError(f"{command}: {done.stdout}{done.stderr}")


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def show(times: dict[str, tuple[float, float]]) -> None:
    """Print the times."""
    for command, (wall, processor) in times.items():
        print(f"{command:28} {wall:5.1f} s, {processor:5.1f} s of processor time")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        show(measure(sys.argv[1:] or ["preset=paper"], Path(name) / "copy"))
