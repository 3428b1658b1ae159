"""Two Snakemakes in one folder: who renews the marks, and what the other sees."""

import errno
import fcntl
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.runtime.errors import UserError
from pipeline.runtime.locks import this_process
from pipeline.workflow.one_snakemake import RUNNING, take_turn

ROOT = Path(__file__).parents[2]
PLAN = """
from pathlib import Path
from pipeline.workflow.one_snakemake import refusal, take_turn, tell_plan
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
    process = f"{first.pid} on {socket.gethostname()}"
    assert f"Snakemake runs here as process {process}: its plan is shown" in told
    assert refused.startswith(f"Snakemake runs here as process {process}: wait for it")
    first.communicate("\n")
    third = start(tmp_path, "print(refusal())")
    assert third.communicate()[0] == "None\nNone\n", "and waits for no plan of before"


def test_the_turn_of_a_killed_one_is_free(tmp_path: Path) -> None:
    killed = start(tmp_path, "tell_plan(Path('graph'))", "print('told', flush=True)", "input()")
    assert [line(killed), line(killed)] == ["None", "told"]
    killed.kill()
    killed.wait()
    assert start(tmp_path).communicate()[0] == "None\n"


def test_settings_are_not_composed_under_a_run(tmp_path: Path) -> None:
    running = start(tmp_path, "input()")
    assert line(running) == "None"
    (tmp_path / RUNNING).parent.mkdir(parents=True)
    (tmp_path / RUNNING).hardlink_to(tmp_path / "marks" / "running")
    composed = subprocess.run(
        [sys.executable, "-m", "pipeline", "compose"], cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    running.communicate("\n")
    assert composed.returncode == 2
    assert f"error: Snakemake runs here as process {running.pid} on" in composed.stderr
    assert not (tmp_path / "params.yaml").exists()


def test_a_file_system_without_locks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(descriptor: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    told = r"running: cannot be locked \(No locks available\); use a file system with flock"
    with pytest.raises(UserError, match=told):
        take_turn(tmp_path / "running")


def test_a_process_is_told_with_its_host_and_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "node7")
    monkeypatch.setattr(os, "getpid", lambda: 12)
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert this_process() == "12 on node7"
    monkeypatch.setenv("SLURM_JOB_ID", "34")
    assert this_process() == "12 on node7 (Slurm job 34)"
