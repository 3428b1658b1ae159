"""What a training writes."""

import csv
import fcntl
import hashlib
import inspect
import os
import shutil
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.methods.method import build_method
from pipeline.models.build import build_restorer, giga_macs
from pipeline.models.restorers.unet import UNet
from pipeline.models.weights import load_tensors
from pipeline.runtime.checkpoints import (
    FINISHED,
    Checkpoint,
    checkpoints_folder,
    forget_finished,
)
from pipeline.runtime.errors import UserError
from pipeline.runtime.locks import this_process
from pipeline.runtime.paths import LOG_FILE, MODEL_FILE, STATE_FILE
from pipeline.training.log import TrainingDisplay
from pipeline.training.loop import train
from tests.helpers.training_job import (
    BASELINES,
    NOISE_SPACE,
    RESTORER,
    STEPS,
    TRAIN,
    VANILLA,
    job,
    results,
    write_images,
)
from tests.training import test_training
from tests.training.test_training import stop_at

checkpoints = test_training.checkpoints
images = test_training.images
pretrained = test_training.pretrained


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
    assert facts["giga_macs_128"] == giga_macs(build_restorer(RESTORER)) > 0


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
