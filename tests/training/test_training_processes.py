"""Several processes, shares, clipping and compiling of a training."""

import copy
import csv
import json
import math
import os
import re
import signal
import socket
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
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
from pipeline.runtime.errors import UserError
from pipeline.runtime.paths import LOG_FILE, MODEL_FILE, STATE_FILE
from pipeline.training.log import Stopwatch
from pipeline.training.loop import RETRY_STATUS, train
from pipeline.training.processes import start_processes
from tests.helpers import preloaded
from tests.helpers.training_job import (
    BASELINES,
    NOISE_SPACE,
    RESTORER,
    ROOT,
    STEPS,
    TRAIN,
    VANILLA,
    job,
    results,
)
from tests.training import test_training
from tests.training.test_training import run_training, stop_at

checkpoints = test_training.checkpoints
images = test_training.images


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
    assert sorted(path.name for path in done.folder.iterdir()) == [
        LOG_FILE, MODEL_FILE, "snapshots.safetensors",
    ]  # fmt: skip


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
