"""Training: repeatable, stoppable anywhere, and honest about what went wrong."""

import json
import os
import random
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from pipeline.runtime.errors import UserError
from pipeline.runtime.locks import lock
from pipeline.runtime.paths import MODEL_FILE, STATE_FILE
from pipeline.training.log import TrainingDisplay
from pipeline.training.loop import RETRY_STATUS, train
from tests.helpers import preloaded
from tests.helpers.training_job import (
    BASELINES,
    NOISE_SPACE,
    PRETRAIN_STEPS,
    ROOT,
    TRAIN,
    VANILLA,
    job,
    results,
    write_images,
)


@pytest.fixture(autouse=True)
def checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "checkpoints"
    monkeypatch.setenv("PIPELINE_CHECKPOINTS", str(folder))
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_images(folder)
    return folder


@pytest.fixture
def pretrained(images: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "pretrained"
    train(job(images, folder, VANILLA, last_step=PRETRAIN_STEPS, keeps="state"))
    return folder / STATE_FILE


def run_training(
    images: Path, folder: Path, stop: dict[str, Any] | None = None, **changes: Any
) -> subprocess.CompletedProcess[str]:
    """Run the training in a process of its own."""
    given = {"images": str(images), "folder": str(folder), "stop": stop, **changes}
    return subprocess.run(
        [preloaded.python(), "-m", "tests.helpers.training_job", json.dumps(given)],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Make a signal arrive while the given step is being shown."""
    shown = TrainingDisplay.step_done

    def step_done(self: TrainingDisplay, now: int, *rest: Any) -> None:
        shown(self, now, *rest)
        if now == step:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(TrainingDisplay, "step_done", step_done)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
@pytest.mark.parametrize("step", [1, 4, 6])
def test_a_stopped_training_goes_on_to_the_same_bytes(
    images: Path,
    pretrained: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    step: int,
) -> None:
    start = pretrained if step > PRETRAIN_STEPS else None
    train(job(images, tmp_path / "unbroken", NOISE_SPACE, start_from=start))
    with monkeypatch.context() as patch:
        stop_at(step, patch, number)
        with pytest.raises(SystemExit) as stopped:
            train(job(images, tmp_path / "stopped", NOISE_SPACE, start_from=start))
    assert stopped.value.code == RETRY_STATUS
    assert not (tmp_path / "stopped" / MODEL_FILE).exists()
    # another number of loader processes must change nothing either
    other = replace(TRAIN, workers=2, checkpoint_every_steps=1)
    train(job(images, tmp_path / "stopped", NOISE_SPACE, start_from=start, train=other))
    assert results(tmp_path / "stopped") == results(tmp_path / "unbroken")


@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_goes_on_to_the_same_bytes(
    images: Path, pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Networks beside the restorer, their optimizers and what spectral normalization remembers."""
    method = BASELINES[name]
    train(job(images, tmp_path / "unbroken", method, start_from=pretrained))
    with monkeypatch.context() as patch:
        stop_at(5, patch, signal.SIGTERM)
        with pytest.raises(SystemExit):
            train(job(images, tmp_path / "stopped", method, start_from=pretrained))
    train(job(images, tmp_path / "stopped", method, start_from=pretrained))
    assert results(tmp_path / "stopped") == results(tmp_path / "unbroken")


LOADED: dict[str, Any] = {"train": {"steps": 24, "workers": 2}, "last_step": 24}


def start_with_loaders(
    images: Path, folder: Path, checkpoints: Path
) -> tuple[subprocess.Popen[str], psutil.Process]:
    """Start a training with loader processes; return command and process once it has a state."""
    given = {"images": str(images), "folder": str(folder), **LOADED}
    started = subprocess.Popen(
        [preloaded.python(), "-m", "tests.helpers.training_job", json.dumps(given)],
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not (saved := list(checkpoints.rglob(STATE_FILE))):
        assert started.poll() is None
        time.sleep(0.01)
    number, _, _ = (saved[0].parent / "lock").read_text().partition(" ")
    return started, psutil.Process(int(number))


def test_a_signal_to_all_processes_lets_a_training_save(
    images: Path, tmp_path: Path, checkpoints: Path
) -> None:
    """As Slurm sends it, to the loader processes too."""
    started, training = start_with_loaders(images, tmp_path / "run", checkpoints)
    for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
        os.killpg(training.pid, number)
    said = started.communicate(timeout=300)[1]
    assert started.returncode == RETRY_STATUS, said
    assert "stopped, saved at step" in said
    again = run_training(images, tmp_path / "run", **LOADED)
    assert again.returncode == 0 and "going on from step" in again.stderr, again.stderr
    plain = replace(TRAIN, steps=24)
    train(job(images, tmp_path / "unbroken", NOISE_SPACE, train=plain, last_step=24))
    assert results(tmp_path / "run") == results(tmp_path / "unbroken")


def test_a_training_whose_loader_was_killed_ends(
    images: Path, tmp_path: Path, checkpoints: Path
) -> None:
    """As Linux does when memory runs out. The training must not wait for its other loaders."""
    started, training = start_with_loaders(images, tmp_path / "run", checkpoints)
    training.children()[0].kill()
    said = started.communicate(timeout=60)[1]
    assert started.returncode == 1 and "is killed by signal: Killed" in said, said
    again = run_training(images, tmp_path / "run", **LOADED)
    assert again.returncode == 0, again.stderr


def test_a_training_that_fails_ends_its_loaders(images: Path, tmp_path: Path) -> None:
    stop = {"step": 3, "signal": "SIGTERM", "where": "error"}
    done = run_training(images, tmp_path / "run", stop=stop, **LOADED)  # at most two minutes
    assert done.returncode == 1 and "UserError: out of memory" in done.stderr, done.stderr


def test_a_killed_training_can_be_started_again_at_once(
    images: Path, tmp_path: Path, checkpoints: Path
) -> None:
    """Its loader processes hold its locks too, and end with it."""
    started, training = start_with_loaders(images, tmp_path / "run", checkpoints)
    (held,) = checkpoints.rglob("lock")
    training.kill()
    started.wait()
    with held.open("a+") as file:
        deadline = time.monotonic() + 2  # PyTorch's loaders look every five seconds
        while not lock(file.fileno(), held):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    started.communicate()


def test_loader_processes_end_with_a_killed_training(
    images: Path, tmp_path: Path, checkpoints: Path
) -> None:
    started, training = start_with_loaders(images, tmp_path / "run", checkpoints)
    loaders = training.children()
    assert len(loaders) == 2
    training.kill()
    started.communicate(timeout=60)  # all that wrote to its output have ended
    deadline = time.monotonic() + 10
    # a dead process that nobody has collected is there still
    while [p for p in loaders if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]:
        assert time.monotonic() < deadline
        time.sleep(0.01)


STOPS = 8


def test_killed_again_and_again_it_ends_with_the_same_bytes(images: Path, tmp_path: Path) -> None:
    """One training, stopped at eight random steps, each time by another signal or while saving."""
    steps = 36
    long = replace(TRAIN, steps=steps, checkpoint_every_steps=3)
    train(job(images, tmp_path / "unbroken", NOISE_SPACE, train=long, last_step=steps))
    chosen = sorted(random.Random(0).sample(range(1, steps - 3), STOPS))
    ways = [("SIGKILL", "step"), ("SIGTERM", "step"), ("SIGKILL", "saving"), ("SIGUSR1", "step")]
    for number, step in enumerate(chosen):
        name, where = ways[number % len(ways)]
        done = run_training(
            images,
            tmp_path / "stopped",
            stop={"step": step, "signal": name, "where": where},
            train={"steps": steps, "checkpoint_every_steps": 3, "workers": number % 3},
            last_step=steps,
        )
        expected = -signal.SIGKILL if name == "SIGKILL" else RETRY_STATUS
        assert done.returncode == expected, done.stderr
        assert not (tmp_path / "stopped" / MODEL_FILE).exists()
        if number and chosen[number - 1] >= 4:  # it had a checkpoint before it was killed
            assert "going on from step" in done.stderr
    train(job(images, tmp_path / "stopped", NOISE_SPACE, train=long, last_step=steps))
    assert results(tmp_path / "stopped") == results(tmp_path / "unbroken")


def test_a_full_disk_keeps_the_last_checkpoint(
    images: Path, tmp_path: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new checkpoint is written beside the last one, so it may find no room."""
    often = replace(TRAIN, checkpoint_every_steps=1)
    train(job(images, tmp_path / "unbroken", VANILLA, train=often))
    monkeypatch.setenv("PIPELINE_CHECKPOINTS", str(small_disk))
    filler = small_disk / "filler"
    shown = TrainingDisplay.step_done

    def fill(self: TrainingDisplay, now: int, *rest: Any) -> None:
        shown(self, now, *rest)
        if now == 4:
            free = os.statvfs(small_disk)
            filler.write_bytes(b"x" * (free.f_bavail * free.f_bsize - 8192))

    with monkeypatch.context() as patch:
        patch.setattr(TrainingDisplay, "step_done", fill)
        with pytest.raises(UserError, match="free some disk space and run the same command again"):
            train(job(images, tmp_path / "stopped", VANILLA, train=often))
    filler.unlink()
    went_on = []
    monkeypatch.setattr(TrainingDisplay, "say", lambda self, text: went_on.append(text))
    train(job(images, tmp_path / "stopped", VANILLA, train=often))
    # that of step 4 has taken the place of the state before the last
    assert went_on[1:] == ["going on from step 4"]
    assert results(tmp_path / "stopped") == results(tmp_path / "unbroken")
