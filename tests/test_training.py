"""Training: repeatable, stoppable anywhere, and honest about what went wrong."""

import csv
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.config.data import GaussianNoise, SyntheticDomain
from pipeline.config.learning import Denoiser, NoiseSchedule, NoiseSpace, Train, UNet, Vanilla
from pipeline.errors import UserError
from pipeline.models.weights import load_tensors
from pipeline.paths import LOG_FILE, MODEL_FILE, STATE_FILE
from pipeline.store import Record, write_store
from pipeline.training.log import ProgressDisplay, Stopwatch, TrainingLog
from pipeline.training.loop import RETRY_STATUS, Job, train
from pipeline.training.state import Checkpoint

STEPS = 7
PRETRAIN_STEPS = 3

VANILLA = Vanilla(adaptation="none", start="pretrained")
NOISE_SPACE = NoiseSpace(
    adaptation="noise_space",
    start="pretrained",
    weight=1.0,
    ramp=2,
    ramp_unit="steps",
    margin=0.1,
    channel_shuffling=True,
    residual_swapping=True,
    target="paired",
    conditions="both",
    diffusion_step_range=(1, 999),
    denoiser_learning_rate_factor=1.0,
    schedule=NoiseSchedule(1000, 1e-6, 0.01),
    denoiser=Denoiser((8, 16), 1, 1, 8, 4, dropout=0.2),
)
TRAIN = Train(
    steps=STEPS,
    pretrain_steps=PRETRAIN_STEPS,
    batch=2,
    accumulate=1,
    devices=1,
    nodes=1,
    patch=16,
    learning_rate=1e-3,
    learning_rate_decay="cosine",
    adam_betas=(0.9, 0.999),
    clip_norm=None,
    average_decay=0.9,
    precision="fp32",
    compile=False,
    threads=1,
    workers=0,
    log_every_steps=2,
    checkpoint_every_steps=2,
)


@pytest.fixture(autouse=True)
def checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "checkpoints"
    monkeypatch.setenv("PIPELINE_CHECKPOINTS", str(folder))
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)

    def noise() -> np.ndarray:
        return generator.integers(0, 256, (24, 20, 3), dtype=np.uint8)

    clean = [Record(f"c{i}", f"c{i}", "made", 24, 20, clean=noise) for i in range(3)]
    real = [Record(f"r{i}", f"r{i}", "made", 24, 20, degraded=noise) for i in range(2)]
    write_store(folder / "synthetic.h5", clean)
    write_store(folder / "real.h5", real)
    return folder


@pytest.fixture
def pretrained(images: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "pretrained"
    train(job(images, folder, VANILLA, last_step=PRETRAIN_STEPS, keeps="state"))
    return folder / STATE_FILE


def job(images: Path, folder: Path, method: Vanilla | NoiseSpace, **changes: object) -> Job:
    noise = GaussianNoise(model="gaussian_noise", sigma_255=(0.0, 75.0))
    made = Job(
        title="test",
        task_name="denoise",
        method_name="any",
        synthetic=SyntheticDomain(degradation=noise, draw="anew", copies=1),
        image_range=(0.0, 1.0),
        learning_rate_factor=1.0,
        method=method,
        restorer=UNet(name="unet", levels=2, channels=4),
        train=TRAIN,
        seed=0,
        images=images,
        start_from=None,
        last_step=STEPS,
        keeps="model",
        folder=folder,
        timings=folder.with_suffix(".timings.csv"),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def results(folder: Path) -> tuple[bytes, bytes]:
    return (folder / MODEL_FILE).read_bytes(), (folder / LOG_FILE).read_bytes()


def stop_at(step: int, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """Make a signal arrive while the given step is being shown."""
    shown = ProgressDisplay.update

    def update(self: ProgressDisplay, now: int, log: TrainingLog, stopwatch: Stopwatch) -> None:
        shown(self, now, log, stopwatch)
        if now == step:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(ProgressDisplay, "update", update)


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
    assert not (tmp_path / "stopped").exists()
    # another number of loader processes must change nothing either
    other = replace(TRAIN, workers=2, checkpoint_every_steps=1)
    train(job(images, tmp_path / "stopped", NOISE_SPACE, start_from=start, train=other))
    assert results(tmp_path / "stopped") == results(tmp_path / "unbroken")


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


def test_weight_zero_is_vanilla(images: Path, pretrained: Path, tmp_path: Path) -> None:
    """The denoiser learns beside the restorer but does not touch it: methods are comparable."""
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


def test_a_loss_that_is_not_finite_names_step_term_and_checkpoint(
    images: Path, tmp_path: Path
) -> None:
    wild = replace(TRAIN, learning_rate=1.0, learning_rate_decay="none", checkpoint_every_steps=1)
    exploding = replace(NOISE_SPACE, weight=1000.0, denoiser_learning_rate_factor=1.0)
    endless = replace(wild, steps=400, pretrain_steps=0)
    with pytest.raises(UserError, match=r"step \d+: the loss term '\w+' is .*state\.safetensors"):
        train(job(images, tmp_path / "x", exploding, train=endless, last_step=400))


def test_two_processes_never_train_the_same(tmp_path: Path) -> None:
    held = pytest.raises(UserError, match=f"process {os.getpid()} is training this already")
    with Checkpoint("name"), held:
        Checkpoint("name")
    with Checkpoint("name"):
        pass  # free again


def test_a_damaged_checkpoint_is_reported(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoints: Path
) -> None:
    with monkeypatch.context() as patch:
        stop_at(2, patch, signal.SIGTERM)
        with pytest.raises(SystemExit):
            train(job(images, tmp_path / "x", VANILLA))
    (saved,) = checkpoints.glob("*/state.safetensors")
    saved.write_bytes(saved.read_bytes()[:100])
    with pytest.raises(UserError, match="damaged"):
        train(job(images, tmp_path / "x", VANILLA))


def test_an_image_smaller_than_the_patch_is_named_before_any_work(
    images: Path, tmp_path: Path, checkpoints: Path
) -> None:
    large = replace(TRAIN, patch=32)
    with pytest.raises(UserError, match=r"'c0' is 20x24, smaller than the training patch of 32"):
        train(job(images, tmp_path / "x", VANILLA, train=large))
    assert not checkpoints.exists()
