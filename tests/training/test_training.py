"""Training: repeatable, stoppable anywhere, and honest about what went wrong."""

import copy
import csv
import fcntl
import hashlib
import inspect
import json
import math
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch import nn

from pipeline.config.methods import TrainedMethod
from pipeline.config.running import Train
from pipeline.device import use_precision
from pipeline.methods.method import Progress, build_method
from pipeline.models.adversarial import Generator
from pipeline.models.build import build_restorer, initialize
from pipeline.models.restorers.unet import UNet
from pipeline.models.weights import load_tensors
from pipeline.runtime.checkpoints import (
    FINISHED,
    Checkpoint,
    checkpoints_folder,
    forget_finished,
)
from pipeline.runtime.errors import UserError
from pipeline.runtime.locks import lock, this_process
from pipeline.runtime.paths import LOG_FILE, MODEL_FILE, STATE_FILE
from pipeline.training.log import Stopwatch, TrainingDisplay
from pipeline.training.loop import RETRY_STATUS, train
from pipeline.training.processes import start_processes
from tests.helpers import preloaded
from tests.helpers.training_job import (
    BASELINES,
    NOISE_SPACE,
    PRETRAIN_STEPS,
    RESTORER,
    ROOT,
    STEPS,
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


LOADED: dict[str, Any] = {"train": {"steps": 60, "workers": 2}, "last_step": 60}


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
    plain = replace(TRAIN, steps=60)
    train(job(images, tmp_path / "unbroken", NOISE_SPACE, train=plain, last_step=60))
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


STOPS = 12


def test_killed_again_and_again_it_ends_with_the_same_bytes(images: Path, tmp_path: Path) -> None:
    """One training, stopped at twelve random steps, each time by another signal or while saving."""
    steps = 60
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


# Processes, shares, clipping, compiling

WHOLE = replace(TRAIN, batch=4)
EVEN: dict[str, Any] = {
    # the hinge is taken over the images that pass at once, as in the release: with a margin that
    # every share exceeds it is linear, and the shares' mean is the whole batch's
    "margin": 5.0,
    "denoiser": replace(NOISE_SPACE.denoiser, dropout=0.0),  # its masks differ by share
}

EVEN_AS_TEXT = {"margin": 5.0, "denoiser": {"dropout": 0.0}}


def trained(images: Path, folder: Path, settings: Train, method: TrainedMethod) -> dict[str, Any]:
    train(job(images, folder, method, train=settings))
    tensors, _ = load_tensors(folder / MODEL_FILE)
    return tensors


def assert_nearly_the_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Sums in another order differ in the last digits, which Adam's division may enlarge."""
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=2e-6)


def test_shares_add_up_to_the_whole_batch(images: Path, tmp_path: Path) -> None:
    method = replace(NOISE_SPACE, **EVEN)
    whole = trained(images, tmp_path / "whole", WHOLE, method)
    shares = trained(images, tmp_path / "shares", replace(WHOLE, accumulate=4), method)
    assert_nearly_the_same(shares, whole)
    logs = [np.genfromtxt(tmp_path / name / LOG_FILE, delimiter=",", names=True)
            for name in ("whole", "shares")]  # fmt: skip
    norms = ("restoration_gradient", "diffusion_gradient")
    for column in ("total", "restoration", "positive_error", "negative_error", *norms):
        np.testing.assert_allclose(logs[1][column], logs[0][column], rtol=1e-4)


@pytest.mark.parametrize("name", BASELINES)
def test_shares_of_every_baseline_add_up(images: Path, tmp_path: Path, name: str) -> None:
    """Nearly: spectral normalization takes a step nearer to its value with each share."""
    whole = trained(images, tmp_path / "whole", WHOLE, BASELINES[name])
    shares = trained(images, tmp_path / "shares", replace(WHOLE, accumulate=4), BASELINES[name])
    for key, value in whole.items():
        torch.testing.assert_close(shares[key], value, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("name", ["cycada", "neighbor2neighbor"])
def test_two_processes_train_a_baseline_as_one(images: Path, tmp_path: Path, name: str) -> None:
    whole = trained(images, tmp_path / "one", WHOLE, BASELINES[name])
    settings = {"batch": 4, "devices": 2}
    done = run_training(images, tmp_path / "two", method=name, train=settings)
    assert done.returncode == 0, done.stderr
    found, _ = load_tensors(tmp_path / "two" / MODEL_FILE)
    for key, value in whole.items():
        torch.testing.assert_close(found[key], value, rtol=1e-2, atol=1e-4)


def test_two_processes_equal_one(images: Path, tmp_path: Path) -> None:
    """Two ranks over gloo, each with half of every batch, against one with the whole."""
    whole = trained(images, tmp_path / "one", WHOLE, replace(NOISE_SPACE, **EVEN))
    done = run_training(
        images,
        tmp_path / "two",
        method=EVEN_AS_TEXT,
        train={"batch": 4, "devices": 2},
    )
    assert done.returncode == 0, done.stderr
    found, facts = load_tensors(tmp_path / "two" / MODEL_FILE)
    assert facts["train"]["devices"] == 2
    assert_nearly_the_same(found, whole)


def test_two_tasks_of_slurm_find_each_other(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As ``srun --ntasks=2`` starts them: each task is told its rank, none starts the other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in {
        "SLURM_JOB_ID": "17", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NNODES": "1",
        "SLURM_NTASKS_PER_NODE": "2", "SLURM_NODELIST": "127.0.0.1", "SLURM_NODEID": "0",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    given = {"images": str(images), "folder": str(tmp_path / "two"), "method": EVEN_AS_TEXT,
             "train": {"batch": 4, "devices": 2}}  # fmt: skip
    tasks = [
        subprocess.Popen(
            [preloaded.python(), "-m", "tests.helpers.training_job", json.dumps(given)],
            cwd=ROOT, env={**os.environ, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    said = [task.communicate(timeout=300)[1] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0], said
    monkeypatch.delenv("SLURM_NTASKS")
    whole = trained(images, tmp_path / "one", WHOLE, replace(NOISE_SPACE, **EVEN))
    assert_nearly_the_same(load_tensors(tmp_path / "two" / MODEL_FILE)[0], whole)


def test_a_slurm_job_of_one_task_starts_its_own_processes(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"SLURM_JOB_ID": "17", "SLURM_NTASKS": "1", "SLURM_PROCID": "0",
                        "SLURM_LOCALID": "0", "SLURM_JOB_NAME": "train"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    done = run_training(images, tmp_path / "two", train={"batch": 4, "devices": 2})
    assert done.returncode == 0, done.stderr
    assert load_tensors(tmp_path / "two" / MODEL_FILE)[1]["train"]["devices"] == 2


@pytest.mark.parametrize("devices", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_stop_together_and_go_on(images: Path, tmp_path: Path, devices: int) -> None:
    """Of more than two the order of sums matters, and DDP changes it once after each start."""
    settings = {"batch": 4, "devices": devices}
    assert run_training(images, tmp_path / "unbroken", train=settings).returncode == 0
    stop = {"step": 3, "signal": "SIGTERM", "where": "step", "rank": 0}
    done = run_training(images, tmp_path / "stopped", stop=stop, train=settings)
    assert done.returncode == RETRY_STATUS, done.stderr
    again = run_training(images, tmp_path / "stopped", train=settings)
    assert again.returncode == 0 and "going on from step 3" in again.stderr, again.stderr
    assert results(tmp_path / "stopped") == results(tmp_path / "unbroken")


def test_processes_that_do_not_see_the_same_checkpoint_are_told(
    images: Path, tmp_path: Path
) -> None:
    settings = {"batch": 4, "devices": 2}
    stop = {"step": 3, "signal": "SIGTERM", "where": "step"}
    done = run_training(images, tmp_path / "run", stop=stop, train=settings)
    assert done.returncode == RETRY_STATUS, done.stderr
    elsewhere = str(tmp_path / "elsewhere")
    done = run_training(
        images, tmp_path / "run", train=settings, checkpoints_of_followers=elsewhere
    )
    assert done.returncode and "processes go on from different steps, [3, 0]" in done.stderr
    assert not (tmp_path / "run" / MODEL_FILE).exists()
    assert run_training(images, tmp_path / "run", train=settings).returncode == 0


@pytest.mark.parametrize(
    ("variables", "nodes", "message"),
    [
        ({}, 2, "train.nodes: found 2, but nobody has started processes on other nodes"),
        ({"SLURM_NTASKS": "2"}, 1, "SLURM_NTASKS: found 2, expected 1 = train.nodes 1 x"),
    ],
)
def test_processes_that_nobody_starts_are_not_waited_for(
    variables: dict[str, str], nodes: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=message):
        start_processes(replace(TRAIN, nodes=nodes), STEPS)


def test_clipping_bounds_every_networks_gradient(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    norms = []
    stepped = torch.optim.Adam.step

    def step(self: torch.optim.Adam, *given: Any) -> Any:
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(torch.stack([g.norm() for g in gradients]).norm().item())
        return stepped(self, *given)

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    train(job(images, tmp_path / "free", NOISE_SPACE))
    assert max(norms) > 0.02
    norms.clear()
    train(job(images, tmp_path / "clipped", NOISE_SPACE, train=replace(TRAIN, clip_norm=0.01)))
    assert max(norms) <= 0.01 * (1 + 1e-4)


@pytest.mark.parametrize("name", ["noise_space", *BASELINES])
def test_networks_that_play_against_each_other_have_less_momentum(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As PixelDA and CycleGAN are trained; the restorer's Adam is the same with every method."""
    betas = []
    made = torch.optim.Adam.__init__

    def init(self: torch.optim.Adam, *given: Any, **named: Any) -> None:
        betas.append(named["betas"])
        made(self, *given, **named)

    monkeypatch.setattr(torch.optim.Adam, "__init__", init)
    method = {"noise_space": NOISE_SPACE, **BASELINES}[name]
    train(job(images, tmp_path / name, method, train=replace(TRAIN, steps=4), last_step=4))
    restorer, *others = betas
    assert restorer == (0.9, 0.999)
    adaptation = build_method(UNet(levels=2, channels=4), method)
    assert set(others) <= {(adaptation.momentum() or 0.9, 0.999)}


@pytest.mark.slow
@pytest.mark.parametrize("method", [VANILLA, replace(NOISE_SPACE, **EVEN)])
def test_a_compiled_training_has_the_same_names_and_nearly_the_same_weights(
    images: Path, tmp_path: Path, method: TrainedMethod
) -> None:
    plain = trained(images, tmp_path / "plain", TRAIN, method)
    fast = replace(TRAIN, compile=True)
    try:
        compiled = trained(images, tmp_path / "compiled", fast, method)
    except torch._dynamo.exc.BackendCompilerFailed as error:
        pytest.skip(f"torch.compile finds no compiler here: {str(error).splitlines()[0]}")
    assert list(compiled) == list(plain)
    assert_nearly_the_same(compiled, plain)


def test_the_share_of_waiting_is_measured(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("time.perf_counter", lambda: now)
    stopwatch = Stopwatch()
    for seconds in (1.0, 2.0):
        with stopwatch.waiting():
            now += seconds
        now += 3.0
        stopwatch.step_done()
    stopwatch.close_interval(step=2)
    assert stopwatch.rows == [{"step": 2, "seconds_per_step": 4.5, "waiting_share": 0.3333}]


def test_durations_go_on_after_a_stop(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = job(images, tmp_path / "run", VANILLA)
    with monkeypatch.context() as patch:
        stop_at(5, patch, signal.SIGTERM)
        with pytest.raises(SystemExit):
            train(stopped)
    before = stopped.timings.read_text().splitlines()
    train(stopped)
    after = stopped.timings.read_text().splitlines()
    assert after[: len(before)] == before
    assert [row.split(",")[0] for row in after[1:]] == ["2", "4", "6", "7"]


def test_the_threads_are_those_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fabric divides the processors among the processes that it launches."""
    before = torch.get_num_threads()
    monkeypatch.setattr("lightning_fabric.Fabric.launch", lambda self: torch.set_num_threads(7))
    start_processes(replace(TRAIN, threads=3), STEPS)
    assert torch.get_num_threads() == 3
    torch.set_num_threads(before)


def test_a_training_without_updates_starts_no_other_process(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``train.pretrain_steps=0`` it writes first weights only, and needs no GPU for that."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    started: list[int] = []
    monkeypatch.setattr("subprocess.Popen", lambda *given, **options: started.append(1))
    for devices in (1, 2):
        alone = replace(TRAIN, pretrain_steps=0, devices=devices)
        folder = tmp_path / f"of_{devices}"
        train(job(images, folder, VANILLA, train=alone, last_step=0, keeps="state"))
    states = [load_tensors(tmp_path / f"of_{devices}" / STATE_FILE)[0] for devices in (1, 2)]
    assert states[0].keys() == states[1].keys() and not started
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_an_epoch_ends_when_all_images_were_drawn(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three images, two a step: the third step is the first of the second epoch."""
    seen: list[Progress] = []

    def remember(**values: Any) -> Progress:
        seen.append(Progress(**values))
        return seen[-1]

    monkeypatch.setattr("pipeline.training.loop.Progress", remember)
    train(job(images, tmp_path / "run", NOISE_SPACE))
    assert [progress.epoch for progress in seen] == [1, 1, 2, 3, 3, 4, 5]
    assert [progress.step for progress in seen] == list(range(1, STEPS + 1))


def test_first_weights_are_those_of_the_release(images: Path, tmp_path: Path) -> None:
    """Normal with variance 2 / inputs, biases 0, in both networks; the seed decides them."""
    kaiming = replace(TRAIN, initialization="kaiming", pretrain_steps=0)
    for name in ("one", "again"):
        train(job(images, tmp_path / name, VANILLA, train=kaiming, last_step=0, keeps="state"))
    found, _ = load_tensors(tmp_path / "one" / STATE_FILE)
    again, _ = load_tensors(tmp_path / "again" / STATE_FILE)
    assert all(torch.equal(value, again[name]) for name, value in found.items())
    restorer_biases = [v for name, v in found.items() if re.match(r"networks.*bias$", name)]
    assert restorer_biases and not any(value.any() for value in restorer_biases)

    torch.manual_seed(0)
    adaptation = build_method(restorer := build_restorer(RESTORER), NOISE_SPACE)
    before = copy.deepcopy(restorer.state_dict())
    initialize(adaptation, "default")
    initialize(adaptation, "kaiming", without=restorer)
    assert all(torch.equal(value, before[name]) for name, value in restorer.state_dict().items())
    initialize(restorer, "kaiming")
    weighted = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    layers = [module for module in adaptation.modules() if isinstance(module, weighted)]
    assert len(layers) > 30
    for layer in layers:
        inputs = layer.weight[0].numel()
        spread = float(layer.weight.detach().square().mean() * inputs / 2)
        # the mean of n squares of normal values varies by sqrt(2 / n)
        assert abs(spread - 1) < 5 * math.sqrt(2 / layer.weight.numel())
        assert layer.bias is None or not layer.bias.any()


@pytest.mark.parametrize("name", ["pixel_da", "cycada"])
def test_generators_start_as_the_identity_with_the_first_weights_of_the_release(name: str) -> None:
    torch.manual_seed(0)
    adaptation = build_method(restorer := build_restorer(RESTORER), BASELINES[name])
    initialize(adaptation, "kaiming", without=restorer)
    generators = [m for m in adaptation.modules() if isinstance(m, Generator)]
    assert generators
    for generator in generators:
        images = torch.rand(2, 3, 16, 16)
        channels = generator.first.in_channels // 4 - 3
        noise = torch.rand(2, channels, 16, 16) if channels else None
        assert torch.equal(generator(images, noise), images)
        inputs = generator.first.weight[0].numel()
        spread = float(generator.first.weight.detach().square().mean() * inputs / 2)
        assert abs(spread - 1) < 5 * math.sqrt(2 / generator.first.weight.numel())


def test_fp32_is_float32_on_gpus_too() -> None:
    """PyTorch's default is TF32 for convolutions; it has a name of its own here."""
    for wanted, rounds in (("tf32", True), ("fp32", False), ("bf16", False), ("auto", False)):
        assert use_precision(wanted) == wanted or wanted == "auto"
        assert torch.backends.cudnn.allow_tf32 is rounds


def test_durations_lie_outside_the_results(images: Path, tmp_path: Path) -> None:
    done = job(images, tmp_path / "run", VANILLA)
    train(done)
    rows = list(csv.DictReader(done.timings.open()))
    assert [row["step"] for row in rows] == ["2", "4", "6", "7"]
    assert all(0 <= float(row["waiting_share"]) <= 1 for row in rows)
    assert sorted(path.name for path in done.folder.iterdir()) == [LOG_FILE, MODEL_FILE]


def test_more_gpus_than_there_are_is_told(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match=r"train.devices: found 2, but this node has 1 GPUs"):
        train(job(images, tmp_path / "x", VANILLA, train=replace(TRAIN, devices=2)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")
@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 5e-3)])
def test_a_gpu_learns_what_the_cpu_learns(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    precision: Any,
    tolerance: float,
) -> None:
    settings = replace(TRAIN, precision=precision)
    for name in ("dropout", "again"):
        train(job(images, tmp_path / name, NOISE_SPACE, train=settings))
    assert results(tmp_path / "dropout") == results(tmp_path / "again"), "same seed, same bytes"
    on_gpu = trained(images, tmp_path / "gpu", settings, replace(NOISE_SPACE, **EVEN))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    on_cpu = trained(images, tmp_path / "cpu", settings, replace(NOISE_SPACE, **EVEN))
    for name, value in on_cpu.items():
        torch.testing.assert_close(on_gpu[name], value, rtol=1e-2, atol=tolerance)


# What is written


def test_the_unpaired_extension_trains(images: Path, tmp_path: Path) -> None:
    """Without a source of its own it takes other crops of the synthetic pairs' clean images."""
    method = replace(NOISE_SPACE, target="unpaired", residual_swapping=False)
    paired = replace(method, target="paired")
    for name, chosen in (("unpaired", method), ("paired", paired)):
        train(job(images, tmp_path / name, chosen))
    assert results(tmp_path / "unpaired")[0] != results(tmp_path / "paired")[0]


def test_the_prediction_error_by_condition_travels_with_the_model(
    images: Path, tmp_path: Path
) -> None:
    train(job(images, tmp_path / "run", NOISE_SPACE))
    _, facts = load_tensors(tmp_path / "run" / MODEL_FILE)
    measured = facts["measured"]
    assert len(measured["error"]) == len(measured["condition_sigma_255"]) > 3
    assert all(np.isfinite([*measured["error"], measured["error_restored"]]))
    train(job(images, tmp_path / "vanilla", VANILLA))
    assert load_tensors(tmp_path / "vanilla" / MODEL_FILE)[1]["measured"] == {}


def test_loader_processes_change_nothing(images: Path, tmp_path: Path) -> None:
    train(job(images, tmp_path / "none", NOISE_SPACE))
    train(job(images, tmp_path / "two", NOISE_SPACE, train=replace(TRAIN, workers=2)))
    assert results(tmp_path / "none") == results(tmp_path / "two")


def test_vanilla_from_the_shared_pretraining_equals_unbroken_vanilla(
    images: Path, pretrained: Path, tmp_path: Path
) -> None:
    train(job(images, tmp_path / "shared", VANILLA, start_from=pretrained))
    train(job(images, tmp_path / "scratch", VANILLA))
    assert results(tmp_path / "shared") == results(tmp_path / "scratch")


def test_vanilla_is_the_same_whatever_else_was_trained(
    images: Path, pretrained: Path, tmp_path: Path
) -> None:
    train(job(images, tmp_path / "before", VANILLA, start_from=pretrained))
    for name, method in BASELINES.items():
        train(job(images, tmp_path / name, method, start_from=pretrained))
    train(job(images, tmp_path / "after", VANILLA, start_from=pretrained))
    assert results(tmp_path / "after") == results(tmp_path / "before")
    models = {results(tmp_path / name)[0] for name in BASELINES}
    assert len(models) == len(BASELINES), "and no two methods give the same"


@pytest.mark.parametrize("name", BASELINES)
def test_of_a_baseline_the_restorer_alone_is_kept(
    images: Path, pretrained: Path, tmp_path: Path, name: str
) -> None:
    train(job(images, tmp_path / "vanilla", VANILLA, start_from=pretrained))
    train(job(images, tmp_path / name, BASELINES[name], start_from=pretrained))
    kept, facts = load_tensors(tmp_path / name / MODEL_FILE)
    assert kept.keys() == load_tensors(tmp_path / "vanilla" / MODEL_FILE)[0].keys()
    others = build_method(UNet(levels=2, channels=4), BASELINES[name]).learning_rate_factors()
    assert (facts["extra_parameters"] > 0) == bool(others)


def test_only_a_method_that_asks_for_the_truth_opens_it(
    images: Path, tmp_path: Path, pixels: Any, pack: Any
) -> None:
    without = tmp_path / "images"
    shutil.copytree(images, without)
    (without / "truth.h5").unlink()
    for name, method in BASELINES.items():
        if not method.is_bound:
            train(job(without, tmp_path / name, method, last_step=1))
    bound = job(without, tmp_path / "x", BASELINES["target_supervised"])
    with pytest.raises(UserError, match=r"truth.h5: not found"):
        train(bound)
    pack(without / "truth.h5", {"id": "other", "clean": pixels(0, 24, 20)})
    with pytest.raises(UserError, match=r"truth of 1 images, expected that of all 2"):
        train(bound)


def test_weight_zero_is_vanilla(images: Path, pretrained: Path, tmp_path: Path) -> None:
    """Nothing but the diffusion loss tells the methods apart."""
    off = replace(NOISE_SPACE, weight=0.0)
    train(job(images, tmp_path / "off", off, start_from=pretrained))
    train(job(images, tmp_path / "vanilla", VANILLA, start_from=pretrained))
    found, _ = load_tensors(tmp_path / "off" / MODEL_FILE)
    expected, _ = load_tensors(tmp_path / "vanilla" / MODEL_FILE)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)


def test_the_diffusion_loss_reaches_the_restorer(
    images: Path, pretrained: Path, tmp_path: Path
) -> None:
    train(job(images, tmp_path / "on", NOISE_SPACE, start_from=pretrained))
    train(job(images, tmp_path / "vanilla", VANILLA, start_from=pretrained))
    assert results(tmp_path / "on")[0] != results(tmp_path / "vanilla")[0]


def test_the_model_is_the_moving_average(images: Path, tmp_path: Path) -> None:
    """After one step with decay 0.9 the average equals the weights: the first step copies them."""
    short = replace(TRAIN, steps=2, pretrain_steps=0)
    for name, last_step, keeps in (("first", 1, "state"), ("second", 2, "state")):
        train(job(images, tmp_path / name, VANILLA, train=short, last_step=last_step, keeps=keeps))
    first, _ = load_tensors(tmp_path / "first" / STATE_FILE)
    second, _ = load_tensors(tmp_path / "second" / STATE_FILE)
    for name in [name for name in first if name.startswith("networks.restorer.")]:
        average = name.replace("networks.restorer.", "average.module.")
        assert torch.equal(first[average], first[name])
        expected = 0.9 * first[average] + 0.1 * second[name]
        torch.testing.assert_close(second[average], expected)


def test_log_rows_are_interval_means_and_name_the_counters(images: Path, tmp_path: Path) -> None:
    train(job(images, tmp_path / "run", NOISE_SPACE))
    with (tmp_path / "run" / LOG_FILE).open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [2, 4, 6, 7]
    assert [int(row["images_seen"]) for row in rows] == [4, 8, 12, 14]
    assert {"restoration", "diffusion", "positive_error", "negative_error", "contrast"} <= set(
        rows[0]
    )
    # constant while pretraining, then half a cosine over the four steps that are left
    expected = [1e-3, 1e-3, 1e-3 / 2, 1e-3 * (1 + np.cos(np.pi * 3 / 4)) / 2]
    assert [float(row["learning_rate"]) for row in rows] == pytest.approx(expected)


@pytest.mark.parametrize("name", BASELINES)
def test_every_row_of_the_log_has_the_restoration_loss(
    images: Path, tmp_path: Path, name: str
) -> None:
    """DVC's plots draw it for every method, also for those that do not learn from it."""
    train(job(images, tmp_path / name, BASELINES[name]))
    rows = list(csv.DictReader((tmp_path / name / LOG_FILE).open()))
    assert [row["step"] for row in rows] == ["2", "4", "6", "7"]
    assert all(float(row["restoration"]) > 0 for row in rows)


def test_seeds_differ_and_repeat(images: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(job(images, tmp_path / name, VANILLA, seed=seed))
    assert results(tmp_path / "a") == results(tmp_path / "b")
    assert results(tmp_path / "a")[1] != results(tmp_path / "c")[1]


def test_another_configuration_never_resumes(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoints: Path
) -> None:
    with monkeypatch.context() as patch:
        stop_at(2, patch, signal.SIGTERM)
        with pytest.raises(SystemExit):
            train(job(images, tmp_path / "stopped", VANILLA))
    assert len(list(checkpoints.iterdir())) == 1
    other = replace(TRAIN, learning_rate=2e-3)
    train(job(images, tmp_path / "other", VANILLA, train=other))
    train(job(images, tmp_path / "clean", VANILLA, train=other))
    assert results(tmp_path / "other") == results(tmp_path / "clean")
    assert len(list(checkpoints.iterdir())) == 1, "the stopped one is kept, the finished removed"


def test_other_data_and_other_code_never_resume(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoints: Path
) -> None:
    def stop(images: Path, name: str) -> None:
        with monkeypatch.context() as patch:
            stop_at(2, patch, signal.SIGTERM)
            with pytest.raises(SystemExit):
                train(job(images, tmp_path / name, VANILLA))

    stop(images, "first")
    write_images(tmp_path / "images", seed=1)
    stop(tmp_path / "images", "data")
    source = inspect.getsource
    monkeypatch.setattr(inspect, "getsource", lambda of: f"{source(of)}#")
    stop(images, "code")
    monkeypatch.undo()
    monkeypatch.setenv("PIPELINE_CHECKPOINTS", str(checkpoints))
    monkeypatch.setattr("pipeline.training.state.version", lambda name: f"{name} of tomorrow")
    stop(images, "libraries")
    saved = list(checkpoints.rglob(STATE_FILE))
    assert len(saved) == 4


def test_a_loss_that_is_not_finite_names_step_term_and_checkpoint(
    images: Path, tmp_path: Path
) -> None:
    wild = replace(TRAIN, learning_rate=1.0, learning_rate_decay="none", checkpoint_every_steps=1)
    exploding = replace(NOISE_SPACE, weight=1000.0, denoiser_learning_rate_factor=1.0)
    endless = replace(wild, steps=400, pretrain_steps=0)
    with pytest.raises(UserError, match=r"step \d+: the loss term '\w+' is .*state\.safetensors"):
        train(job(images, tmp_path / "x", exploding, train=endless, last_step=400))


def test_an_update_to_weights_that_are_not_finite_is_never_saved(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoints: Path
) -> None:
    """The loss of the step is finite still, its gradient is not: the next loss tells too late."""
    stepped = torch.optim.Adam.step
    updates = 0

    def step(self: torch.optim.Adam, *given: Any) -> Any:
        nonlocal updates
        updates += 1
        if updates == 4:
            self.param_groups[0]["params"][0].grad.fill_(torch.inf)
        return stepped(self, *given)

    monkeypatch.setattr(torch.optim.Adam, "step", step)
    told = r"step 4: the update made restorer\S* not finite \(last good checkpoint: .*safetensors"
    with pytest.raises(UserError, match=told):
        train(job(images, tmp_path / "x", VANILLA))
    (saved,) = checkpoints.rglob("state.safetensors")
    tensors, facts = load_tensors(saved)
    assert facts["step"] == 2
    assert all(value.isfinite().all() for value in tensors.values())


def test_two_processes_never_train_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = pytest.raises(UserError, match=f"process {os.getpid()} on .+ is training this already")
    with Checkpoint("name", tmp_path / "a"):
        with held:
            Checkpoint("name", tmp_path / "b")
        with held:  # other settings, the same results
            Checkpoint("other", tmp_path / "a")
        monkeypatch.setenv("PIPELINE_CHECKPOINTS", str(tmp_path / "elsewhere"))
        with held:
            Checkpoint("name", tmp_path / "a")
    with Checkpoint("name", tmp_path / "a"):
        pass  # free again


def test_of_two_experiments_the_second_waits_for_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A queue runs several at once, and they share what their settings have in common."""
    monkeypatch.setenv("DVC_EXP_NAME", "x")
    began: list[float] = []

    def begin() -> None:
        with Checkpoint("name", tmp_path / "b"):
            began.append(time.monotonic())

    with Checkpoint("name", tmp_path / "a"):
        other = threading.Thread(target=begin, daemon=True)
        other.start()
        other.join(timeout=1)
        with pytest.raises(UserError, match="is training this already; wait for it or stop it"):
            Checkpoint("other", tmp_path / "a")  # what writes to the same place is no experiment
        ended = time.monotonic()
    other.join(timeout=20)
    assert began and began[0] > ended
    told = f"process {this_process()} is training this already; waiting for it"
    assert capsys.readouterr().out.count(told) == 1


def test_a_result_that_another_has_waited_for_is_not_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoints: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    Path("model").write_text("made")
    Path("dvc.lock").write_text(f"md5: {hashlib.md5(b'made').hexdigest()}\n")
    with Checkpoint("name", tmp_path / "a") as checkpoint:
        checkpoint.finish(Path("model"))
        forget_finished()
        assert checkpoint.folder.is_dir()
    forget_finished()
    assert list(checkpoints_folder().iterdir()) == []


def test_a_lock_that_was_deleted_holds_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoints: Path
) -> None:
    """The holder deletes the folder between another's opening of the lock and its taking it."""
    taken = fcntl.flock
    calls = 0

    def flock(descriptor: int, how: int) -> None:
        nonlocal calls
        taken(descriptor, how)
        calls += 1
        if calls == 1:
            shutil.rmtree(checkpoints_folder() / "name")

    monkeypatch.setattr(fcntl, "flock", flock)
    with Checkpoint("name", tmp_path / "a") as checkpoint:
        assert (checkpoint.folder / "lock").read_text() == this_process()
        assert calls == 3


def test_killed_before_dvc_has_the_result_nothing_is_trained_again(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoints: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    train(job(images, tmp_path / "run", NOISE_SPACE))
    made = results(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")  # as DVC does before it runs a stage again
    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(TrainingDisplay, "say", lambda self, text: said.append(text))
        train(job(images, tmp_path / "run", NOISE_SPACE))
    assert said[1:] == [f"going on from step {STEPS}"]
    assert results(tmp_path / "run") == made
    forget_finished()
    (note,) = checkpoints.rglob(FINISHED)  # no dvc.lock yet
    part = hashlib.md5(made[0]).hexdigest()
    for other in ("0123", part[:-1], f"{part}0"):
        Path("dvc.lock").write_text(f"md5: {other}\n")
        forget_finished()
        assert note.is_file()
    Path("dvc.lock").write_text(f"md5: {hashlib.md5(made[0]).hexdigest()}\n")
    forget_finished()
    assert list(checkpoints_folder().iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "empty", "one bit", "both"])
def test_with_a_damaged_checkpoint_it_ends_with_the_same_bytes(
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    checkpoints: Path,
    capsys: pytest.CaptureFixture[str],
    damage: str,
) -> None:
    """From the state before, which was saved one step earlier, or from the start."""
    often = replace(TRAIN, checkpoint_every_steps=1)
    train(job(images, tmp_path / "unbroken", VANILLA, train=often))
    with monkeypatch.context() as patch:
        stop_at(3, patch, signal.SIGTERM)
        with pytest.raises(SystemExit):
            train(job(images, tmp_path / "x", VANILLA, train=often))
    (saved,) = checkpoints.rglob("state.safetensors")
    content = saved.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    saved.write_bytes({"cut": content[:100], "empty": b""}.get(damage, flipped))
    if damage == "both":
        (checkpoints_folder() / saved.parent.name / "previous.safetensors").write_bytes(b"")
    said: list[str] = []
    monkeypatch.setattr(TrainingDisplay, "say", lambda self, text: said.append(text))
    train(job(images, tmp_path / "x", VANILLA, train=often))
    assert said[1:] == ([] if damage == "both" else ["going on from step 2"])
    assert "set aside as state.safetensors.damaged" in capsys.readouterr().err
    assert results(tmp_path / "x") == results(tmp_path / "unbroken")


def test_an_image_smaller_than_the_patch_is_named_before_any_work(
    images: Path, tmp_path: Path, checkpoints: Path
) -> None:
    large = replace(TRAIN, patch=32)
    with pytest.raises(UserError, match=r"'c0' is 20x24, smaller than the training patch of 32"):
        train(job(images, tmp_path / "x", VANILLA, train=large))
    assert not checkpoints.exists()
