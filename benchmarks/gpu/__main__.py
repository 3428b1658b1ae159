"""``python -m benchmarks.gpu``: see ``benchmarks/gpu/__init__.py``."""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import benchmarks.gpu
from benchmarks.gpu.setup import Section, Setup, how_to_carry, missing


class _TimeIsUp(Exception):
    """The section has used its time."""


def main(words: list[str]) -> int:
    """Measure and write; return 1 if a check failed or a section ended with an error."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=benchmarks.gpu.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="folder, default: gpu")
    parser.add_argument("--size", choices=["paper", "tiny"], help="default: paper on a GPU")
    given = parser.parse_args(words)
    lacking = missing()
    if lacking:
        print(f"error: {how_to_carry(lacking)}", file=sys.stderr)
        return 2
    return run(given.minutes, given.out, given.size)


def run(minutes: float, out: Path, size: Any) -> int:
    """Run all sections; see ``main``."""
    import torch

    from benchmarks.gpu.sections import SECTIONS
    from benchmarks.gpu.writing import Result, facts

    begun = time.monotonic()
    device: Any = "cuda" if torch.cuda.is_available() else "cpu"
    chosen: Any = size or ("paper" if device == "cuda" else "tiny")
    with tempfile.TemporaryDirectory() as name:
        setup = Setup(device, chosen, Path(name), begun + minutes * 60)
        result = Result(out, facts(setup, minutes), SECTIONS)
        total = sum(section.share for section in SECTIONS)
        passed = 0.0
        for section in SECTIONS:
            passed += section.share
            ends = begun + minutes * 60 * passed / total
            print(f"{section.title} ...", flush=True)
            _measure(section, Setup(device, chosen, Path(name), ends), result)
    print(f"written: {out / 'gpu.md'}, {out / 'gpu.json'}")
    if result.failed:
        print(f"error: failed: {'; '.join(result.failed)}", file=sys.stderr)
    return 1 if result.failed else 0


def _measure(section: Section, setup: Setup, result: Any) -> None:
    """Run one section; an error or the end of its time ends it alone."""
    try:
        with _time_limit(setup.left()):
            for row in section.work(setup, result.rows):
                result.add(section.title, row)
                print("  " + ", ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    except _TimeIsUp:
        result.note(section.title, "Cut: its share of the time was up.")
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        result.note(section.title, f"error: {type(error).__name__}: {text}")


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        raise _TimeIsUp

    if seconds <= 0:
        raise _TimeIsUp
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
