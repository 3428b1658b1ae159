"""Of several processes one is lost: all end within a minute, in one line, and can go on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.runtime.errors import UserError
from pipeline.runtime.paths import LOG_FILE, MODEL_FILE, STATE_FILE
from pipeline.training import lost
from tests.helpers import preloaded
from tests.helpers.training_job import ROOT, results, write_images

TWO = {"batch": 4, "devices": 2, "checkpoint_every_steps": 1}


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PIPELINE_CHECKPOINTS", str(tmp_path / "checkpoints"))
    write_images(tmp_path / "images")
    return tmp_path / "images"


def start(
    images: Path, folder: Path, python: str | None = None, **changes: Any
) -> "subprocess.Popen[str]":
    given = {"images": str(images), "folder": str(folder), "train": TWO, **changes}
    return subprocess.Popen(
        [python or preloaded.python(), "-m", "tests.helpers.training_job", json.dumps(given)],
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_lost_follower_ends_the_job_in_one_line(images: Path, tmp_path: Path) -> None:
    stop = {"step": 4, "signal": "SIGKILL", "where": "step", "rank": 1}
    ended = start(images, tmp_path / "run", stop=stop)
    said = ended.communicate(timeout=180)[1]
    assert ended.returncode == os.EX_TEMPFAIL, said
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    assert errors == [
        "error: process 2 of 2 on this node was ended by signal SIGKILL, so all end; the same"
        " command goes on from the last checkpoint"
    ]
    assert "Traceback" not in said
    again = start(images, tmp_path / "run")
    said = again.communicate(timeout=180)[1]
    assert again.returncode == 0 and "going on from step" in said, said
    unbroken = start(images, tmp_path / "unbroken")
    assert unbroken.wait(timeout=180) == 0
    assert {path.name for path in (tmp_path / "run").iterdir()} >= {MODEL_FILE, LOG_FILE}
    assert results(tmp_path / "run") == results(tmp_path / "unbroken")


def test_followers_of_a_lost_leader_end(images: Path, tmp_path: Path) -> None:
    """In real processes, as their parents are what is tested."""
    long = {"train": {**TWO, "steps": 10_000}, "last_step": 10_000}
    running = start(images, tmp_path / "run", sys.executable, **long)
    while not list((tmp_path / "checkpoints").rglob(STATE_FILE)):
        assert running.poll() is None
        time.sleep(0.05)
    children = psutil.Process(running.pid).children()
    assert children
    running.send_signal(signal.SIGKILL)
    gone, alive = psutil.wait_procs(children, timeout=60)
    assert len(gone) == len(children) and not alive


def test_a_broken_connection_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody watches, as among tasks of srun; texts of gloo and of NCCL."""
    monkeypatch.setattr(lost, "WAIT_S", 0.0)
    for text in (
        "[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:1\nand more",
        "NCCL error in: ProcessGroupNCCL.cpp:1275, remote process exited or network error",
    ):
        gone = pytest.raises(UserError, match="another process of this training is gone")
        with gone as told, lost.lost_processes():
            raise RuntimeError(text)
        assert "\n" not in str(told.value)
    with pytest.raises(RuntimeError, match="of another kind"), lost.lost_processes():
        raise RuntimeError("of another kind")
