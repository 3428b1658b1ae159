"""Two Snakemakes in one folder: who renews the marks, and what the other sees."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PLAN = """
from pathlib import Path
from pipeline.turns import refusal, take_turn, tell_plan
print(take_turn(Path("marks", "running")), flush=True)
"""


def start(folder: Path, *then: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PLAN + "\n".join(then)], cwd=folder, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_the_second_sees_the_plan_of_the_first_and_may_not_run(tmp_path: Path) -> None:
    first = start(tmp_path, "input()", "tell_plan(Path('graph'))", "print('told')", "input()")
    assert line(first) == "None"
    second = start(tmp_path, "print(refusal())")
    with pytest.raises(subprocess.TimeoutExpired):
        second.wait(timeout=1)  # for the first one's plan
    assert first.stdin is not None
    first.stdin.write("\n")
    first.stdin.flush()
    printed, told = second.communicate()
    plan, refused = printed.splitlines()
    assert plan == "graph"
    assert f"Snakemake runs here as process {first.pid}: its plan is shown" in told
    assert refused.startswith(f"Snakemake runs here as process {first.pid}: wait for it")
    first.communicate("\n")
    third = start(tmp_path, "print(refusal())")
    assert third.communicate()[0] == "None\nNone\n", "and waits for no plan of before"


def test_the_turn_of_a_killed_one_is_free(tmp_path: Path) -> None:
    killed = start(tmp_path, "tell_plan(Path('graph'))", "print('told', flush=True)", "input()")
    assert [line(killed), line(killed)] == ["None", "told"]
    killed.kill()
    killed.wait()
    assert start(tmp_path).communicate()[0] == "None\n"
