"""The graph of three tasks on the tiny preset: repeats to the byte, survives kills, varies."""

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.config.read import read_params
from pipeline.config.restorers import UNetSettings
from pipeline.models.build import build_restorer
from pipeline.runtime.files import sha256_of
from tests.helpers.workspace import Workspace, clone, copy, stages_run

TASKS = ("denoise", "derain", "deblur")
METHODS = ("vanilla", "noise_space")


@pytest.fixture(scope="module")
def reproduced(three_tasks: Path) -> Workspace:
    """A clone after one unbroken run, committed."""
    workspace = clone(three_tasks, three_tasks.parent / "reproduced")
    output = workspace.succeed("dvc", "repro")
    assert "report" in stages_run(output)
    workspace.commit("results")
    return workspace


@pytest.fixture
def again(reproduced: Workspace, request: pytest.FixtureRequest) -> Workspace:
    """The reproduced clone, put back afterwards as it was."""

    def put_back() -> None:
        reproduced.succeed("git", "checkout", "--force", ".")
        reproduced.succeed("git", "clean", "--quiet", "--force", "-d")
        reproduced.succeed("dvc", "checkout", "--force")

    request.addfinalizer(put_back)
    return reproduced


def rows_of(workspace: Workspace) -> list[dict[str, Any]]:
    """Return the rows of the real domain; as many tell of the synthetic one."""
    rows = json.loads((workspace.folder / "reports" / "summary.json").read_text())
    return [row for row in rows if row["domain"] == "real"]


@pytest.mark.graph
def test_summary_has_a_row_for_every_number(reproduced: Workspace) -> None:
    rows = rows_of(reproduced)
    named = {(row["task"], row["method"], row["seed"]) for row in rows}
    expected = {(task, "degraded", None) for task in TASKS}
    expected |= {(task, method, 0) for task in TASKS for method in METHODS}
    assert named == expected
    protocols = {"denoise": "sidd", "derain": "y", "deblur": "rgb"}
    for row in rows:
        assert row["simulated"] and "simulated real" in row["data_set"]
        assert row["protocol"] == protocols[row["task"]]
        assert (row["images"], row["scenes"]) == (48, 12)
        assert 5 < row["psnr"] < 60 and -1 < row["ssim"] < 1
    page = (reproduced.folder / "reports" / "report.html").read_text()
    assert all(name in page for name in (*TASKS, *METHODS, "degraded"))


def output_names(stage: str) -> Callable[[str], bool]:
    """Be ready some random time after a stage began."""
    delay = random.Random(stage).randrange(200)
    polls = 0

    def ready(output: str) -> bool:
        nonlocal polls
        polls += f"Running stage '{stage}'" in output
        return polls > delay

    return ready


@pytest.mark.slow
def test_killed_in_every_stage_it_ends_with_the_same_bytes(
    three_tasks: Path, reproduced: Workspace
) -> None:
    workspace = clone(three_tasks, three_tasks.parent / "killed")

    def saved(output: str) -> bool:
        return any((workspace.folder / ".checkpoints").glob("*/state.safetensors"))

    def killed(ready: Callable[[str], bool], with_children: bool = True) -> str:
        # as 'make reproduce' does: the kill may have hit DVC while it rewrote dvc.lock
        workspace.succeed("python", "-m", "pipeline", "mend_lock")
        return workspace.kill_when(ready, "dvc", "repro", with_children=with_children)

    for stage in ("download@skimage", "prepare@skimage", "synthesize@derain"):
        killed(output_names(stage))
    killed(saved)
    output = killed(output_names("train@denoise-noise_space-0"))
    assert "going on from step" in output, "the pretraining went on from its checkpoint"
    # only DVC itself is killed: the training must not go on as an orphan beside its successor
    killed(output_names("train@derain-noise_space-0"), with_children=False)
    for stage in ("evaluate_degraded@deblur", "evaluate@deblur-noise_space-0", "report"):
        assert "is training this already" not in killed(output_names(stage))
    workspace.succeed("python", "-m", "pipeline", "mend_lock")
    workspace.succeed("dvc", "repro")

    assert workspace.hashes() == reproduced.hashes()
    name = Path("reports") / "summary.json"
    assert (workspace.folder / name).read_bytes() == (reproduced.folder / name).read_bytes()
    assert not any((workspace.folder / ".checkpoints").iterdir()), "finished, so removed"


@pytest.mark.graph
def test_a_variation_reruns_only_what_depends_on_it_and_can_be_undone(again: Workspace) -> None:
    before = again.hashes()
    changed = ("-S", "preset=tiny", "-S", "train.learning_rate=3e-3")
    output = again.succeed("dvc", "exp", "run", "--name", "slower", *changed)
    expected = {f"pretrain@{task}-0" for task in TASKS} | {"report"}
    expected |= {f"{verb}@{task}-{method}-0" for verb in ("train", "evaluate") for task in TASKS
                 for method in METHODS}  # fmt: skip
    assert stages_run(output) == expected
    assert "metrics/denoise/vanilla-0.json" in again.succeed("dvc", "metrics", "diff", "--md")
    assert again.hashes() != before

    # from the cache, without training: at once with dvc.lock, else DVC finds the earlier runs
    for undone in (["params.yaml"], ["params.yaml", "dvc.lock", "reports"]):
        again.succeed("git", "checkout", *undone)
        again.succeed("dvc", "checkout")
        assert stages_run(again.succeed("dvc", "repro")) == set()
        assert again.hashes() == before
        again.succeed("dvc", "exp", "apply", "slower")
        assert again.hashes() != before


@pytest.mark.graph
def test_fewer_tasks_more_seeds_another_restorer(again: Workspace) -> None:
    output = again.succeed(
        "dvc", "exp", "run", "-S", "preset=tiny", "-S", "tasks=[deblur]", "-S", "seeds=[0,1]",
        "-S", "restorer=unet_small", "-S", "methods.noise_space.start=scratch",
    )  # fmt: skip
    run = stages_run(output)
    assert {"train@deblur-noise_space-1", "train@deblur-vanilla-0", "report"} <= run
    assert not any("denoise" in stage or "derain" in stage for stage in run)
    rows = rows_of(again)
    assert {row["task"] for row in rows} == {"deblur"}
    assert {row["seed"] for row in rows} == {None, 0, 1}


@pytest.mark.graph
def test_released_weights_and_the_unpaired_extension_stand_beside_the_others(
    again: Workspace, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    restorer = build_restorer(UNetSettings(kind="unet", levels=3, channels=8))  # the tiny preset's
    state = {f"RestorationNet.{name}": value for name, value in restorer.state_dict().items()}
    weights = tmp_path / "deblur.pth"
    torch.save(state, weights)
    given = f"{{file:{weights},sha256:{sha256_of(weights)},image_range:[0,1]}}"
    output = again.succeed(
        "dvc", "exp", "run", "-S", "preset=tiny", "-S", "tasks=[deblur]",
        "-S", "methods=[vanilla,noise_space,unpaired,released]",
        "-S", f"+methods.released.weights.deblur={given}",
    )  # fmt: skip
    new = {f"{verb}@deblur-{method}-0" for verb in ("train", "evaluate")
           for method in ("unpaired", "released")}  # fmt: skip
    assert stages_run(output) == new | {"report"}
    rows = rows_of(again)
    steps = {row["method"]: row["steps"] for row in rows}
    assert steps == {
        "degraded": None, "vanilla": 8, "noise_space": 8, "unpaired": 8, "released": None,
    }  # fmt: skip
    page = (again.folder / "reports" / "report.html").read_text()
    assert "not trained here" in page


@pytest.mark.slow
def test_the_baselines_stand_side_by_side(again: Workspace) -> None:
    output = again.succeed(
        "dvc", "exp", "run", "-S", "preset=tiny", "-S", "tasks=[deblur]",
        "-S", "+experiment=baselines",
    )  # fmt: skip
    names = set(read_params(again.folder / "params.yaml").methods) - set(METHODS)
    assert {"dann", "target_supervised"} < names
    new = {f"{verb}@deblur-{method}-0" for verb in ("train", "evaluate") for method in names}
    assert stages_run(output) == new | {"report"}, "vanilla and noise_space are there already"
    rows = rows_of(again)
    assert {row["method"]: row["steps"] for row in rows} == {
        "degraded": None, **dict.fromkeys((*METHODS, *names), 8),
    }  # fmt: skip
    page = (again.folder / "reports" / "report.md").read_text()
    assert "target_supervised: trained on the truth" in page
    costs = (again.folder / "reports" / "cost.md").read_text()
    assert "Parameters thrown away" in costs


@pytest.mark.graph
def test_a_stage_of_two_processes_ends_as_one(pretrained: Workspace, tmp_path: Path) -> None:
    """Both leave the last barrier at once; one of them writes what the stage took."""
    workspace = copy(pretrained, tmp_path / "two")
    workspace.succeed("python", "-m", "pipeline", "compose", "train.devices=2")
    workspace.succeed("dvc", "repro", "train@denoise-noise_space-0")
    record = json.loads(
        (workspace.folder / "logs" / "costs" / "train@denoise-noise_space-0.json").read_text()
    )
    assert record["wall_s"] > 0
    assert not list(workspace.folder.glob("logs/costs/.*"))


@pytest.mark.graph
def test_own_photographs_by_overrides_alone(again: Workspace, tmp_path: Path) -> None:
    folders = ("clean", "snapshots/rain", "pairs/input", "pairs/target")
    generator = np.random.default_rng(0)
    for folder in folders:
        (tmp_path / folder).mkdir(parents=True)
        for name in "ab":
            pixels = generator.integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / folder / f"{name}.png")
    own = [
        "dvc", "exp", "run", "-S", "preset=tiny", "-S", "sources=[folder]",
        "-S", "tasks=[own_derain]", "-S", f"sources.folder.location={tmp_path}",
        "-S", "sources.folder.real=snapshots/rain",
    ]  # fmt: skip
    pairs = "+sources.folder.test.mine={degraded:pairs/input,clean:pairs/target}"
    again.succeed(*own, "-S", pairs)
    rows = rows_of(again)
    assert {row["data_set"] for row in rows} == {"mine"}
    assert not any(row["simulated"] for row in rows)

    # without pairs there is nothing to score, and the report says so
    again.succeed(*own)
    assert rows_of(again) == []

    # a new photograph is noticed; one smaller than the patch is left out, or else named
    Image.new("RGB", (31, 48)).save(tmp_path / "snapshots" / "rain" / "small.png")
    done = again.run(*own)
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed
    assert re.search(r"left out 1 of \d images with a side below 32 pixels", printed), printed
    done = again.run(*own, "-S", "sources.folder.min_side=null")
    printed = done.stdout + done.stderr
    assert done.returncode != 0
    assert "'small' is 31x48, smaller than the training patch of 32" in printed
    assert "Traceback" not in printed
