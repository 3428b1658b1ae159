"""The report on a small workspace whose numbers are known by hand."""

import csv
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dvc.repo import Repo
from PIL import Image
from safetensors.numpy import save_file

from pipeline.config.compose import compose
from pipeline.config.methods import (
    Neighbor2NeighborSettings,
    ReleasedSettings,
    ReleasedWeights,
    TargetSupervisedSettings,
)
from pipeline.config.params import Params
from pipeline.config.read import read_params
from pipeline.evaluation.evaluate import ImageScore
from pipeline.evaluation.metrics import PROTOCOLS as KNOWN_PROTOCOLS
from pipeline.images.pixels import Pixels
from pipeline.images.store import Record, write_store
from pipeline.report import write_report
from pipeline.report.collect import collect
from pipeline.report.cost import method_costs, stage_names
from pipeline.report.examples.choice import CROP_PIXELS, choose, examples, spread
from pipeline.report.examples.grids import GAP_PIXELS, HEADER_PIXELS, LINE_PIXELS
from pipeline.report.figures.conditions import condition_quality
from pipeline.report.figures.curves import curves
from pipeline.report.page import write_cost as write_cost_page
from pipeline.report.provenance import PROTOCOLS, code_state
from pipeline.report.summary import SAID
from pipeline.report.tables.writing import escape_markdown
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import write_text
from pipeline.runtime.paths import COSTS, DEGRADED, SIMULATED, Run, task_images

ROOT = Path(__file__).parents[2]
TASK = "denoise"
DATA_SET = f"tiny photographs, {SIMULATED}"
SCENES = ("attic", "attic", "beach", "cellar")
IMAGES = ("attic_1", "attic_2", "beach_1", "cellar_1")
HEIGHT, WIDTH = 20, 24
OUT = Path("out")

# mean 23, deviations -3, -1, 1, 3
DEGRADED_PSNR = (20.0, 22.0, 24.0, 26.0)
VANILLA_PSNR = (21.0, 22.0, 26.0, 27.0)
# minus vanilla: 1, 3, -1, 2
ADAPTED_PSNR = (22.0, 25.0, 25.0, 29.0)
# last over first: 2.5
MEASURED = {"condition_sigma_255": [0, 20, 80], "error": [0.2, 0.3, 0.5], "error_restored": 0.25}
NO_LPIPS = "weights.pth was not found"
EVALUATION = {"precision": "bf16", "device": "GPU test", "lpips": NO_LPIPS}
RELEASED = "authors"


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Params:
    path = tmp_path_factory.mktemp("conf") / "params.yaml"
    compose(
        [
            "preset=tiny",
            "tasks=[denoise]",
            "methods=[vanilla,noise_space]",
            "report.examples=3",
            "report.bootstrap_samples=2000",
        ],
        path,
    )
    return read_params(path)


@pytest.fixture
def params(composed: Params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """The configuration, with the current folder a workspace made for it."""
    enter(tmp_path, monkeypatch)
    make_workspace(composed)
    return composed


def enter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go to a folder in which git finds no repository further up."""
    folder.mkdir(exist_ok=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(folder.parent))
    for name in ("dvc.yaml", "params.yaml"):  # the page of cost asks the graph for its stages
        shutil.copyfile(ROOT / name, folder / name)


def make_workspace(params: Params) -> None:
    write_images(clean=True)
    write_scores(Run(TASK, DEGRADED), DEGRADED_PSNR)
    write_text(Run(TASK, DEGRADED).evaluation / "facts.json", json.dumps({"lpips": NO_LPIPS}))
    for seed in params.seeds:
        for method, psnr in zip(params.methods, (VANILLA_PSNR, ADAPTED_PSNR), strict=True):
            write_run(params, Run(TASK, method, seed), psnr)


def write_run(params: Params, run: Run, psnr: tuple[float | None, ...]) -> None:
    write_scores(run, psnr)
    adapted = params.methods[run.method].kind != "vanilla"
    columns = {"step": (2, 4, 6), "restoration": (0.4, 0.2, 0.1)}
    if adapted:
        columns |= {"positive_error": ("", 0.9, 0.5), "negative_error": ("", 0.8, 0.7)}
        columns |= {"restoration_gradient": ("", 2.0, 4.0), "diffusion_gradient": ("", 0.1, 1.0)}
    lines = [
        ",".join(columns),
        *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True)),
    ]
    write_text(run.training / "log.csv", "\n".join(lines) + "\n")
    write_model(params, run, measured=MEASURED if adapted else {})
    write_text(run.evaluation / "facts.json", json.dumps(EVALUATION))
    index = list(params.methods).index(run.method)
    write_restored(run, lambda image: flat((100 + 20 * index) % 250 + IMAGES.index(image)))


def write_model(params: Params, run: Run, **changes: Any) -> None:
    facts = {
        "task": run.task, "method": run.method, "seed": run.seed, "steps": params.train.steps,
        "restorer": {"kind": "unet", "levels": 2, "channels": 8}, "parameters": 1234,
        "precision": "fp32", "device": "CPU test", "torch": "2.0.0", **changes,
    }  # fmt: skip
    save_facts(run, facts)


def save_facts(run: Run, facts: dict[str, Any]) -> None:
    weights = {"weight": np.zeros(1, dtype=np.float32)}
    save_file(weights, run.training / "model.safetensors", metadata={"facts": json.dumps(facts)})


def with_released(params: Params) -> Params:
    """Return the configuration with released weights as a further method, and write its files."""
    settings = ReleasedSettings(
        "released", {TASK: ReleasedWeights("weights.pth", "0123", (0.0, 1.0))}
    )
    wider = dataclasses.replace(params, methods={**params.methods, RELEASED: settings})
    for seed in params.seeds:
        run = Run(TASK, RELEASED, seed)
        write_scores(run, DEGRADED_PSNR)
        write_text(run.training / "log.csv", "step\n")
        facts = {
            "task": TASK, "method": RELEASED, "seed": seed, "parameters": 5678,
            "method_settings": {"kind": "released", "sha256": "0123"},
            "restorer": {"kind": "unet", "levels": 2, "channels": 8}, "image_range": [0, 1],
        }  # fmt: skip
        save_facts(run, facts)
        write_restored(run, lambda image: flat(50 + IMAGES.index(image)))
    return wider


def with_methods(params: Params, number: int) -> Params:
    """Return the configuration with that many adapting methods, and write their files."""
    method = params.methods["noise_space"]
    names = [f"variant_{index}" for index in range(number)]
    wider = dataclasses.replace(
        params, methods={"vanilla": params.methods["vanilla"], **dict.fromkeys(names, method)}
    )
    for name in names:
        write_run(wider, Run(TASK, name, 0), ADAPTED_PSNR)
    return wider


def write_scores(
    run: Run, psnr: tuple[float | None, ...], protocol: str = "sidd", data_set: str = DATA_SET,
    scenes: tuple[str, ...] = SCENES, images: tuple[str, ...] = IMAGES, domain: str = "real",
    seen: bool = True,
) -> None:  # fmt: skip
    by = "here" if data_set.endswith(SIMULATED) else "camera"
    rows = [
        ImageScore(
            data_set,
            scene,
            image,
            domain,
            by,
            seen,
            protocol,
            value,
            None if value is None else 0.5,
        )
        for scene, image, value in zip(scenes, images, psnr, strict=True)
    ]
    table = run.evaluation / "per_image.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(field.name for field in dataclasses.fields(ImageScore))
        writer.writerows(dataclasses.astuple(row) for row in rows)


def write_images(clean: bool, data_set: str = DATA_SET) -> None:
    records = [
        Record(
            id=image, scene=scene, data_set=data_set, height=HEIGHT, width=WIDTH,
            degraded=lambda index=index: flat(index),  # type: ignore[misc]
            clean=(lambda index=index: flat(200 + index)) if clean else None,  # type: ignore[misc]
        )
        for index, (image, scene) in enumerate(zip(IMAGES, SCENES, strict=True))
    ]  # fmt: skip
    write_store(task_images(TASK) / "test.h5", records)


def write_restored(run: Run, pixels: Any, images: tuple[str, ...] = IMAGES) -> None:
    records = [
        Record(
            id=image, scene=scene, data_set=DATA_SET, height=HEIGHT, width=WIDTH,
            restored=lambda image=image: pixels(image),  # type: ignore[misc]
        )
        for image, scene in zip(IMAGES, SCENES, strict=True)
        if image in images
    ]  # fmt: skip
    write_store(run.evaluation / "restored.h5", records)


def flat(value: int) -> Pixels:
    return np.full((HEIGHT, WIDTH, 3), value, dtype=np.uint8)


def summary(params: Params) -> list[dict[str, Any]]:
    write_report(params, OUT)
    rows: list[dict[str, Any]] = json.loads((OUT / "summary.json").read_text())
    return rows


def markdown(params: Params) -> str:
    write_report(params, OUT)
    return (OUT / "report.md").read_text()


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


# Numbers


def test_summary_by_hand(params: Params) -> None:
    degraded, vanilla, adapted = summary(params)
    assert degraded == {
        "task": TASK, "method": "degraded", "seed": None, "data_set": DATA_SET, "split": "test",
        "simulated": True, "domain": "real", "seen": True, "protocol": "sidd",
        "images": 4, "scenes": 3,
        "psnr": 23.0, "ssim": 0.5,
        # scenes of means 21 (two images), 24, 26: resampled thrice, at least all 21, at most 26
        "psnr_low": 21.0, "psnr_high": 26.0, "ssim_low": 0.5, "ssim_high": 0.5,
        # sqrt((9 + 1 + 1 + 9) / 3)
        "psnr_std_images": 2.581989, "ssim_std_images": 0.0,
        # one seed: of another nothing is known
        "psnr_mean_seeds": 23.0, "psnr_std_seeds": None,
        "ssim_mean_seeds": 0.5, "ssim_std_seeds": None,
        **dict.fromkeys(f"lpips{part}" for part in SAID), "lpips_missing": NO_LPIPS,
        "steps": None, "restorer": None, "parameters": None, "precision": None, "device": None,
        "evaluation_precision": None, "evaluation_device": None,
        "commit": None, "code_modified": None,
    }  # fmt: skip
    assert (vanilla["method"], vanilla["seed"], vanilla["psnr"]) == ("vanilla", 0, 24.0)
    assert (adapted["method"], adapted["seed"], adapted["psnr"]) == ("noise_space", 0, 25.25)
    assert adapted["restorer"] == "unet (levels 2, channels 8)"
    assert (adapted["parameters"], adapted["steps"]) == (1234, params.train.steps)
    assert (adapted["precision"], adapted["device"]) == ("fp32", "CPU test")
    assert adapted["evaluation_precision"] == "bf16"
    assert adapted["evaluation_device"] == "GPU test"
    text = (OUT / "report.md").read_text()
    for name, value in (("Device", "GPU test"), ("Precision", "bf16")):
        assert f"| {name} of the evaluation | {value} |" in text


def test_one_scene_has_no_interval_and_one_image_no_spread(params: Params) -> None:
    for run in runs(params):
        write_scores(run, (30.0,), scenes=SCENES[:1], images=IMAGES[:1])
    row = summary(params)[0]
    assert row["psnr"] == 30.0
    assert all(row[f"{score}_{bound}"] is None for score in ("psnr", "ssim")
               for bound in ("low", "high", "std_images"))  # fmt: skip
    assert "- (one scene)" in (OUT / "report.md").read_text()


def test_score_table_marks_the_best(params: Params) -> None:
    text = markdown(params)
    assert "| 23.00 | 21.00 to 26.00 | 2.58 | **0.5000** | 0.5000 to 0.5000 | 0.0000 |" in text
    assert "| 95 % interval of PSNR | Std of PSNR over images |" in text
    assert "| noise_space | **25.25** |" in text
    assert "4 images of 3 scenes, protocol sidd" in text
    assert "One seed" in text and "±" not in text
    assert "No method" not in text


def test_it_says_when_the_input_is_better(params: Params) -> None:
    write_scores(Run(TASK, DEGRADED), (40.0, 40.0, 40.0, 40.0))
    text = markdown(params)
    assert "No method has a higher mean PSNR than the degraded input." in text
    assert "| degraded input | **40.00** |" in text


def test_paired_difference_by_hand(params: Params) -> None:
    # (1 + 3 - 1 + 2) / 4; scene means 2, -1, 2
    text = markdown(params)
    assert "| noise_space | +1.25 | -1.00 to +2.00 | - (fewer than 6 scenes) |" in text
    assert "PSNR minus that of vanilla" in text
    assert f"after {params.train.steps} restorer updates each" in text


def test_six_scenes_give_a_p_value(params: Params) -> None:
    names = tuple("abcdef")
    for run in runs(params):
        gain = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0) if run.method == "noise_space" else (0.0,) * 6
        psnr = tuple(20 + value for value in gain)
        write_scores(run, psnr, scenes=names, images=names)
    # all six of one sign: 2 / 2^6
    assert re.search(r"\| noise_space \| \+3\.50 \| .* \| 0\.0312 \|", markdown(params))


def test_two_seeds_give_mean_and_spread(composed: Params, tmp_path: Path, monkeypatch: Any) -> None:
    two = dataclasses.replace(composed, seeds=(0, 1))
    enter(tmp_path, monkeypatch)
    make_workspace(two)
    write_scores(Run(TASK, "vanilla", 1), tuple(value + 2 for value in VANILLA_PSNR))
    rows = summary(two)
    assert [row["psnr"] for row in rows] == [23.0, 24.0, 26.0, 25.25, 25.25]
    assert [row["psnr_mean_seeds"] for row in rows] == [23.0, 25.0, 25.0, 25.25, 25.25]
    assert [row["psnr_std_seeds"] for row in rows] == [None, 1.414214, 1.414214, 0.0, 0.0]
    text = (OUT / "report.md").read_text()
    # means 24 and 26: sqrt(2); the difference is of the images' means over the seeds
    assert "mean ± std over 2 seeds" in text
    assert "| vanilla | 25.00 ± 1.41 |" in text
    assert "| noise_space | **25.25 ± 0.00** |" in text
    assert "| noise_space | +0.25 | -2.00 to +1.00 |" in text
    assert "| degraded input | 23.00 |" in text
    # vanilla's images have 22, 23, 27, 28 on average over the seeds: sqrt(26 / 3)
    assert re.search(r"\| vanilla \| 25.00 ± 1.41 \| [^|]+ \| 2.94 \|", text)
    assert "One seed" not in text


def test_p_values_of_several_methods_are_corrected(params: Params) -> None:
    """Eight tests: three against vanilla, of the last method five more.

    Those are in PSNR against the other two, and in SSIM, which never differs, against all three.
    """
    names = tuple("abcdef")
    wider = with_methods(params, 3)
    gains = {
        # all six of one sign: 2 / 2^6, against vanilla and the last method, times 8
        "variant_0": (1, 2, 3, 4, 5, 6),
        # rank 3 against the others, and so 5 of 2^6 sign patterns as far out: 10 / 2^6, times 6
        "variant_1": (1, 2, -3, 4, 5, 6),
        # no p-value, but counted
        "variant_2": (0,) * 6,
    }
    for run in runs(wider):
        psnr = tuple(20.0 + gain for gain in gains.get(run.method, (0,) * 6))
        write_scores(run, psnr, scenes=names, images=names)
    text = markdown(wider)
    assert "| p (Wilcoxon, over scenes) | p, corrected (Holm) |" in text
    assert re.search(r"\| variant_0 \| \+3\.50 \| .* \| 0\.0312 \| 0\.25 \|", text)
    assert re.search(r"\| variant_1 \| \+2\.50 \| .* \| 0\.156 \| 0\.938 \|", text)
    assert "| - (fewer than 6 scenes with a difference) | - |" in text
    assert "The last column corrects for all 8 tests of this report" in text
    assert "3 methods are compared with vanilla" in text


def test_a_single_comparison_is_said_to_be_one(params: Params) -> None:
    for run in runs(params):
        gain = 1.0 if run.method == "noise_space" else 0.0
        psnr = tuple(20 + gain * place for place in range(1, 7))
        write_scores(run, psnr, scenes=tuple("abcdef"), images=tuple("abcdef"))
    text = markdown(params)
    assert "It is the only test of this report: its p-value needs no correction" in text
    assert re.search(r"\| noise_space \| \+3\.50 \| .* \| 0\.0312 \| 0\.0312 \|", text)


def test_the_upper_bound_is_shown_and_not_compared(params: Params) -> None:
    bound = TargetSupervisedSettings("target_supervised", "pretrained")
    wider = dataclasses.replace(params, methods={**params.methods, "bound": bound})
    write_run(wider, Run(TASK, "bound", 0), (40.0,) * 4)
    text = markdown(wider)
    assert "| bound (upper bound) | 40.00 |" in text and "| noise_space | **25.25** |" in text
    assert not re.search(r"\n\| bound[^|]* \| [+-]", text), "not among the differences"
    assert re.search(r"\n\| noise_space \| [+-]", text)
    assert "no competitor" in text and "the only test of this report" in text


# Released weights


def test_released_weights_are_a_method_without_training(params: Params) -> None:
    wider = with_released(params)
    released = summary(wider)[-1]
    assert (released["method"], released["psnr"], released["parameters"]) == (RELEASED, 23.0, 5678)
    assert (released["steps"], released["device"], released["precision"]) == (None, None, None)
    text = (OUT / "report.md").read_text()
    assert f"| {RELEASED} | 23.00 | 21.00 to 26.00 |" in text
    # minus vanilla: -1, 0, -2, -1
    assert f"| {RELEASED} | -1.00 |" in text
    steps = params.train.steps
    assert f"after {steps} restorer updates each (but for {RELEASED}); 4 images" in text
    assert f"- {RELEASED}: weights of the authors' release, not trained here." in text
    assert f"({RELEASED}: weights of the authors' release, not trained here)" in text
    assert "Last restoration loss: vanilla 0.1000; noise_space 0.1000." in text
    assert "| Parameters | 1,234, 5,678 |" in text
    assert f"| Released weights, not trained here | {RELEASED}, denoise: sha256 0123 |" in text
    assert "| Device of the training | CPU test |" in text
    assert f"| Restorer updates | {steps}, of which" in text
    assert RELEASED not in (OUT / "cost.md").read_text().split("Stages")[0]


def test_released_weights_alone(params: Params) -> None:
    wider = with_released(params)
    alone = dataclasses.replace(wider, methods={RELEASED: wider.methods[RELEASED]})
    text = markdown(alone)
    assert "### Training" not in text and "curves_denoise.png" not in text
    assert "of the training |" not in text and "Restorer updates" not in text
    assert "None" not in text
    assert not (OUT / "figures" / "curves_denoise.png").exists()
    Page((OUT / "report.html").read_text())


def test_released_weights_have_no_spread_over_seeds(
    composed: Params, tmp_path: Path, monkeypatch: Any
) -> None:
    two = dataclasses.replace(composed, seeds=(0, 1))
    enter(tmp_path, monkeypatch)
    make_workspace(two)
    wider = with_released(two)
    assert [row["psnr_std_seeds"] for row in summary(wider)[-2:]] == [None, None]
    text = markdown(wider)
    assert f"| {RELEASED} | 23.00 | 21.00 to 26.00 |" in text
    assert "| vanilla | 24.00 ± 0.00 |" in text


def test_a_trained_model_is_not_taken_for_a_released_one(params: Params) -> None:
    wider = with_released(params)
    write_model(params, Run(TASK, RELEASED, 0))
    with pytest.raises(UserError, match=f"steps = {params.train.steps}, expected None.*dvc repro"):
        collect(wider)


# What is read


def test_runs_that_params_do_not_name_are_not_read(params: Params) -> None:
    write_report(params, Path("before"))
    stale = Run(TASK, "vanilla", 7)
    write_text(stale.evaluation / "per_image.csv", "nonsense")
    write_text(stale.training / "log.csv", "nonsense")
    write_text(stale.timings, "nonsense")
    write_text(COSTS / "train@denoise-vanilla-7.json", "nonsense")
    write_text(Path("after/figures/images_removed.png"), "of a task that is gone")
    write_report(params, Path("after"))
    assert files(Path("after")) == files(Path("before"))


@pytest.mark.parametrize(
    "path",
    [
        Run(TASK, DEGRADED).evaluation / "per_image.csv",
        Run(TASK, "vanilla", 0).evaluation / "per_image.csv",
        Run(TASK, "noise_space", 0).evaluation / "restored.h5",
        Run(TASK, "vanilla", 0).training / "log.csv",
        Run(TASK, "vanilla", 0).training / "model.safetensors",
        task_images(TASK) / "test.h5",
    ],
    ids=str,
)
def test_a_missing_input_is_named(params: Params, path: Path) -> None:
    path.unlink()
    with pytest.raises(UserError, match=rf"{re.escape(str(path))}.*dvc repro"):
        write_report(params, OUT)


def test_a_damaged_model_is_named(params: Params) -> None:
    (Run(TASK, "vanilla", 0).training / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"vanilla-0/model\.safetensors: damaged"):
        collect(params)


@pytest.mark.parametrize(("name", "value"), [("steps", 5), ("method", "other"), ("seed", 3)])
def test_a_model_of_other_settings_is_refused(params: Params, name: str, value: Any) -> None:
    write_model(params, Run(TASK, "vanilla", 0), **{name: value})
    with pytest.raises(UserError, match=f"trained with {name} = {value!r}.*dvc repro"):
        collect(params)


def test_protocols_are_never_mixed(params: Params) -> None:
    write_scores(Run(TASK, "noise_space", 0), ADAPTED_PSNR, protocol="rgb")
    with pytest.raises(UserError, match="protocols rgb and sidd, which cannot be compared"):
        collect(params)


def test_scores_of_other_images_are_refused(params: Params) -> None:
    write_scores(Run(TASK, "vanilla", 0), VANILLA_PSNR, images=("x", *IMAGES[1:]))
    with pytest.raises(UserError, match="lists other images"):
        collect(params)


# Images


@pytest.mark.parametrize(
    ("total", "count", "places"),
    [(7, 3, [0, 3, 6]), (6, 3, [0, 2, 5]), (5, 1, [2]), (4, 2, [0, 3]), (2, 3, [0, 1]),
     (1, 1, [0]), (0, 3, []), (5, 0, [])],
)  # fmt: skip
def test_spread(total: int, count: int, places: list[int]) -> None:
    assert spread(total, count) == places


def test_best_median_and_worst_are_chosen() -> None:
    gains = {"a": 0.1, "b": -2.0, "c": 3.0, "d": 0.5, "e": 0.2}
    assert choose(gains, 3) == ["c", "e", "b"]
    assert choose(gains, 1) == ["e"]
    assert choose({"a": 1.0, "b": 1.0, "c": 1.0}, 3) == ["a", "b", "c"]


def test_the_images_shown_are_those_chosen(params: Params) -> None:
    # gains over vanilla: 1, 3, -1, 2
    shown = examples(params, collect(params)[0].data_sets[0])
    assert [row.image for row in shown.rows] == ["attic_2", "cellar_1", "beach_1"]
    titles = ["largest gain, +3.00 dB", "median gain, +2.00 dB", "smallest gain, -1.00 dB"]
    assert [row.title for row in shown.rows] == titles
    assert "gain in PSNR of noise_space over vanilla, among the 4 of 4 images" in shown.rule
    panels = shown.rows[0].panels
    assert [panel.title for panel in panels] == [
        "degraded input", "vanilla", "noise_space", "clean",
    ]  # fmt: skip
    assert [panel.psnr for panel in panels] == [22.0, 22.0, 25.0, None]
    assert [int(panel.pixels[0, 0, 0]) for panel in panels] == [1, 101, 121, 201]
    # 24 pixels wide: enlarged by 8, the largest whole factor that fits
    assert panels[0].pixels.shape == (HEIGHT * 8, WIDTH * 8, 3)
    assert "attic_2 (largest gain, +3.00 dB): degraded input 22.00 dB" in markdown(params)
    with Image.open(OUT / "figures" / "images_denoise.png") as opened:
        grid = np.asarray(opened.convert("RGB"))
    for column, panel in enumerate(panels):
        x = GAP_PIXELS + column * (CROP_PIXELS + GAP_PIXELS)
        y = HEADER_PIXELS + LINE_PIXELS + (CROP_PIXELS - HEIGHT * 8) // 2
        np.testing.assert_array_equal(grid[y : y + HEIGHT * 8, x : x + WIDTH * 8], panel.pixels)


def test_titles_say_that_not_all_images_were_stored(params: Params) -> None:
    # gains over vanilla: 1, 3, -1, 2, of which the largest and the smallest were not stored
    write_restored(Run(TASK, "vanilla", 0), lambda image: flat(1), ("attic_1", "cellar_1"))
    shown = examples(params, collect(params)[0].data_sets[0])
    assert [row.title for row in shown.rows] == [
        "largest gain of the 2 stored, +2.00 dB", "smallest gain of the 2 stored, +1.00 dB",
    ]  # fmt: skip


def test_a_large_image_is_cropped_in_the_middle(params: Params) -> None:
    ramp = np.arange(300, dtype=np.uint16)[:, None, None].repeat(200, 1).repeat(3, 2)
    pixels = (ramp % 256).astype(np.uint8)
    large = Record("attic_1", "attic", DATA_SET, 300, 200, degraded=lambda: pixels)
    write_store(task_images(TASK) / "test.h5", [large])
    restored = dataclasses.replace(large, degraded=None, restored=lambda: pixels)
    for method in params.methods:
        write_store(Run(TASK, method, 0).evaluation / "restored.h5", [restored])
    panel = examples(params, collect(params)[0].data_sets[0]).rows[0].panels[0]
    assert panel.pixels.shape == (CROP_PIXELS, CROP_PIXELS, 3)
    assert panel.pixels[0, 0, 0] == (300 - CROP_PIXELS) // 2


def test_without_another_method_the_gain_is_over_the_input(params: Params) -> None:
    alone = dataclasses.replace(params, methods={"vanilla": params.methods["vanilla"]})
    text = markdown(alone)
    assert "gain in PSNR of vanilla over degraded input" in text
    assert "PSNR minus" not in text


def test_a_data_set_without_truth_is_shown_unscored(params: Params) -> None:
    write_images(clean=False)
    for run in runs(params):
        write_scores(run, (None,) * 4)
    assert summary(params) == []
    text = (OUT / "report.md").read_text()
    assert "Images of this data set: 4, none with a clean counterpart." in text
    assert "| degraded input" not in text and "PSNR (dB)" not in text
    assert "in the order of the test set" in text
    assert (OUT / "figures" / "images_denoise.png").is_file()
    assert "images_denoise.png" in text


def test_each_data_set_has_its_own_tables(params: Params) -> None:
    for run in runs(params):
        path = run.evaluation / "per_image.csv"
        lines = path.read_text().splitlines()
        lines[3:] = [line.replace(f'"{DATA_SET}"', "polyu") for line in lines[3:]]
        write_text(path, "\n".join(lines) + "\n")
    rows = summary(params)
    assert [row["data_set"] for row in rows] == [DATA_SET] * 3 + ["polyu"] * 3
    assert [row["simulated"] for row in rows] == [True] * 3 + [False] * 3
    assert [row["psnr"] for row in rows if row["method"] == "degraded"] == [21.0, 25.0]
    text = (OUT / "report.md").read_text()
    assert f"### {DATA_SET}\n" in text and "### polyu\n" in text
    assert f"| Restorer | {DATA_SET} | polyu |\n| --- | ---: | ---: |\n" in text
    assert "| degraded input | 21.00 | 25.00 |\n" in text
    # adapted: (22 + 25) / 2 and (25 + 29) / 2
    assert "| noise_space | **23.50** | **27.00** |\n" in text


# Pages


class Page(HTMLParser):
    """Elements of a page; fails on one that is not closed."""

    VOID = ("meta", "img", "link", "br", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert not self.open, "an element is not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_html_is_whole_and_needs_no_network(params: Params) -> None:
    write_report(params, OUT)
    for name in ("report.html", "report_with_cost.html"):
        text = (OUT / name).read_text()
        assert not re.search(r"(src|href)=.https?:|@import|url\(", text)
        page = Page(text)
        assert page.named("script") == [{}] and not page.named("link")
        assert page.named("html")[0]["lang"] == "en"
    page = Page((OUT / "report.html").read_text())
    images = page.named("img")
    # three pictures; of three images and three failures the input, two restored, the clean one and
    # two differences
    assert len(images) == 3 + (3 + 3) * 6
    for image in images:
        assert image["alt"]
        assert (image["src"] or "").startswith(
            ("data:image/png;base64,", "data:image/webp;base64,")
        )
    anchors = {element.get("id") for _, element in page.elements}
    for link in page.named("a"):
        file, _, target = (link["href"] or "").partition("#")
        assert target in anchors, "one file, and the same with cost beside it"
        assert file in ("", "report_with_cost.html")


def test_simulated_data_is_called_so(params: Params) -> None:
    write_report(params, OUT)
    for name in ("report.md", "report.html"):
        text = (OUT / name).read_text()
        assert "Simulated real data." in text
        assert "No photograph of SIDD, SPA-Data, RealBlur" in text
    for run in runs(params):
        write_scores(run, DEGRADED_PSNR, data_set="polyu")
    assert "simulated" not in markdown(params).lower()


def test_curves_tell_how_often_swapping_was_noticed(params: Params) -> None:
    text = markdown(params)
    # d_neg - d_pos: -0.1, then 0.2; the pretraining has neither
    assert "noise_space: d_neg above d_pos in 1 of 2 logged intervals." in text
    assert "Last restoration loss: vanilla 0.1000; noise_space 0.1000." in text
    assert (OUT / "figures" / "curves_denoise.png").is_file()


def test_curves_tell_how_hard_the_diffusion_loss_pulls(params: Params) -> None:
    # last interval: 1 / 4, not the 0.1 / 2 before it
    picture = curves(params, collect(params)[0])
    assert picture is not None
    assert "The first over the second in the last interval: noise_space 0.25." in picture.caption
    # three panels and the legend, in two rows
    assert (picture.width, picture.height) == (920, 680)
    alone = dataclasses.replace(params, methods={"vanilla": params.methods["vanilla"]})
    plain = curves(alone, collect(alone)[0])
    assert plain is not None
    assert (plain.width, plain.height) == (920, 340)
    assert "radient" not in plain.caption


def test_the_whole_loss_and_the_contrast_are_drawn(params: Params) -> None:
    plain = curves(params, collect(params)[0])
    log = Run(TASK, "noise_space", 0).training / "log.csv"
    first, *rows = log.read_text().splitlines()
    lines = [f"{first},total,contrast", *(f"{row},0.6,{0.1 * n}" for n, row in enumerate(rows))]
    write_text(log, "\n".join(lines) + "\n")
    picture = curves(params, collect(params)[0])
    assert plain is not None and picture is not None
    assert "L_con" in picture.caption and "L_con" not in plain.caption
    # a fourth panel: the legend opens a third row
    assert (plain.height, picture.height) == (680, 1020)


def test_timings_are_drawn_on_the_page_with_cost(params: Params) -> None:
    write_report(params, OUT)
    assert "Time of a step" not in (OUT / "report_with_cost.html").read_text()
    before = (OUT / "report.html").read_bytes()
    write_timings(Run(TASK, "vanilla", 0), (0.9, 0.8), (0.2, 0.05))
    write_report(params, OUT)
    assert (OUT / "report.html").read_bytes() == before
    text = (OUT / "report_with_cost.html").read_text()
    page = Page(text)
    (picture,) = (i for i in page.named("img") if "Time of a step" in (i["alt"] or ""))
    assert picture["alt"] == "Time of a step, task denoise. Last waiting for data: vanilla 5 %."
    assert {"href": "report.html"} in page.named("a")
    assert '<a href="report_with_cost.html#cost">' in (OUT / "report.html").read_text()


@pytest.mark.filterwarnings("error")
def test_a_diffusion_loss_without_weight_is_drawn(params: Params) -> None:
    log = Run(TASK, "noise_space", 0).training / "log.csv"
    lines = ["step,restoration,positive_error,restoration_gradient,diffusion_gradient",
             "2,0.4,,,", "4,0.2,0.9,2.0,0.0"]  # fmt: skip
    write_text(log, "\n".join(lines) + "\n")
    picture = curves(params, collect(params)[0])
    assert picture is not None and "in the last interval: noise_space 0." in picture.caption


def test_error_against_the_quality_of_the_conditions_by_hand(params: Params) -> None:
    picture = condition_quality(params, collect(params)[0])
    assert picture is not None
    assert "from each sigma to the next it rises in 1 of 1 training." in picture.caption
    assert "Error at sigma 80 over that at 0: noise_space 2.50." in picture.caption
    assert "seed" not in picture.caption
    assert (
        "noise_space 0.2000 at sigma 0, 0.5000 at 80, 0.2500 with restored images." in picture.alt
    )
    text = markdown(params)
    assert "noise_space 2.50." in text and "(figures/conditions_denoise.png)" in text
    assert (OUT / "figures" / "conditions_denoise.png").read_bytes() == picture.png


def test_error_against_the_quality_over_seeds(
    composed: Params, tmp_path: Path, monkeypatch: Any
) -> None:
    two = dataclasses.replace(composed, seeds=(0, 1))
    enter(tmp_path, monkeypatch)
    make_workspace(two)
    # falls once; last over first 1.5, and 2.5 of the other seed
    falling = {**MEASURED, "error": [0.2, 0.1, 0.3], "error_restored": 0.35}
    write_model(two, Run(TASK, "noise_space", 1), measured=falling)
    picture = condition_quality(two, collect(two)[0])
    assert picture is not None
    assert "it rises in 1 of 2 trainings." in picture.caption
    assert "over that at 0, mean over the seeds: noise_space 2.00." in picture.caption
    assert "Mean over 2 seeds, one faint line a seed." in picture.caption
    assert "0.2000 at sigma 0, 0.4000 at 80, 0.3000 with restored images" in picture.alt


@pytest.mark.parametrize("facts", [{}, {"measured": {}}], ids=["missing", "empty"])
def test_without_measurements_there_is_no_such_picture(params: Params, facts: Any) -> None:
    write_model(params, Run(TASK, "noise_space", 0), **facts)
    assert "conditions_denoise" not in markdown(params)
    assert not (OUT / "figures" / "conditions_denoise.png").exists()


@pytest.mark.filterwarnings("error")
def test_many_methods_have_their_place(params: Params) -> None:
    wider = with_methods(params, 15)
    # of other sizes: a logarithmic axis
    small = {**MEASURED, "error": [0.002, 0.003, 0.005]}
    write_model(wider, Run(TASK, "variant_14", 0), measured=small)
    text = markdown(wider)
    # three tables of fifteen; the last but itself, in PSNR and SSIM
    assert text.count("\n| variant_") == 3 * 15 + 14 * 2
    assert "it rises in 15 of 15 trainings." in text
    picture = curves(wider, collect(wider)[0])
    assert picture is not None and (picture.width, picture.height) == (920, 680)


def test_names_are_escaped(composed: Params, tmp_path: Path, monkeypatch: Any) -> None:
    hostile = 'a|b<i>$x^{$ & *c* "d"'
    methods = dict(zip(("vanilla", hostile), composed.methods.values(), strict=True))
    renamed = dataclasses.replace(composed, methods=methods)
    enter(tmp_path, monkeypatch)
    make_workspace(renamed)
    data_set = "<script>alert(1)</script> | _odd_"
    write_images(clean=True, data_set=data_set)
    for run in runs(renamed):
        write_scores(run, DEGRADED_PSNR, data_set=data_set)
    text = markdown(renamed)
    page = Page((OUT / "report.html").read_text())
    assert len(page.named("script")) == 1 and not page.named("i")
    assert "&lt;script&gt;" in (OUT / "report.html").read_text()
    row = next(line for line in text.splitlines() if line.startswith("| a"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 11, "as many cells as the table has columns"
    assert r"\<script\>alert(1)\</script\> \| \_odd\_" in text


def test_escape_markdown() -> None:
    assert escape_markdown("noise_space, 1 < 2") == r"noise_space, 1 \< 2"
    assert escape_markdown("_x_ `y` [z]\n# t") == r"\_x\_ \`y\` \[z\] # t"


def test_two_renders_have_the_same_bytes(
    composed: Params, tmp_path: Path, monkeypatch: Any
) -> None:
    made = []
    for name, seconds in (("first", 1.0), ("second", 2.0)):
        enter(tmp_path / name, monkeypatch)
        make_workspace(composed)
        write_cost("train@denoise-vanilla-0", seconds, 100)
        write_report(composed, OUT)
        made.append(files(OUT))
    first, second = made
    different = {name for name in first if first[name] != second[name]}
    assert set(first) == set(second)
    assert different == {"cost.json", "cost.md", "report_with_cost.html"}
    pictures = {f"figures/{name}_denoise.png" for name in ("curves", "conditions", "images")}
    assert pictures < set(first)


def test_the_stage_needs_no_torch(params: Params) -> None:
    compose(["preset=tiny", "tasks=[denoise]"], Path("params.yaml"))
    code = (
        "import sys; from stages.report import main; from pipeline.config import read_params;"
        "main(read_params()); assert 'torch' not in sys.modules, 'torch was imported'"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert Path("reports/report.html").is_file()


# Cost and provenance


def write_cost(stage: str, wall_s: float, memory_mib: int, gpu_mib: int | None = None) -> None:
    record = {
        "stage": stage, "wall_s": wall_s, "peak_memory_mib": memory_mib,
        "peak_gpu_memory_mib": gpu_mib,
    }  # fmt: skip
    write_text(COSTS / f"{stage}.json", json.dumps(record))


def write_timings(run: Run, *rows: tuple[float, float]) -> None:
    lines = [f"{step},{seconds},{waiting}" for step, (seconds, waiting) in enumerate(rows)]
    write_text(run.timings, "\n".join(["step,seconds_per_step,waiting_share", *lines]) + "\n")


def test_costs_by_hand(params: Params) -> None:
    write_timings(Run(TASK, "vanilla", 0), (0.9, 0.8), (0.2, 0.0), (0.2, 0.1))
    write_timings(Run(TASK, "noise_space", 0), (0.5, 0.1), (0.6, 0.2))
    write_cost("train@denoise-vanilla-0", 20.0, 1000)
    write_cost("train@denoise-noise_space-0", 50.0, 1250)
    write_report(params, OUT)
    record = json.loads((OUT / "cost.json").read_text())
    assert (record["total_wall_s"], record["peak_memory_mib"]) == (70.0, 1250)
    adapted = record["methods"][1]
    assert (adapted["wall_ratio"], adapted["memory_ratio"]) == (2.5, 1.25)
    # the median of a start and two steps, the mean of their waiting
    plain = record["methods"][0]
    assert (plain["step_s"], plain["waiting_share"], plain["step_ratio"]) == (0.2, 0.3, 1.0)
    assert (adapted["step_s"], adapted["waiting_share"], adapted["step_ratio"]) == (
        0.55,
        0.15,
        2.75,
    )
    unknown = dict.fromkeys(("wall_s", "peak_memory_mib", "peak_gpu_memory_mib"))
    assert {"stage": "pretrain@denoise-0", **unknown} in record["stages"]
    text = (OUT / "cost.md").read_text()
    assert (
        "| denoise, noise_space | 4 | 0.5500 | 2.75 x | 15.0 % | 50.0 | 2.50 x | 1,250 | 1.25 x |"
    ) in text
    assert "| pretrain@denoise-0 | - | - |" in text and "GPU" not in text.split("Seconds a step")[1]


def test_cost_counts_the_updates_of_the_stage(params: Params) -> None:
    """8 of which 4 are shared; whole times compare only where the numbers are equal."""
    afresh = Neighbor2NeighborSettings("neighbor2neighbor", "scratch", weight=2.0)
    wider = dataclasses.replace(params, methods={**params.methods, "ne2ne": afresh})
    found = {cost.method: cost.updates for cost in method_costs(wider)}
    assert found == {"vanilla": 4, "noise_space": 4, "ne2ne": 8}
    write_cost_page(wider, OUT)
    text = (OUT / "cost.md").read_text()
    assert "| Task, method | Updates | Seconds a step |" in text
    assert "| denoise, ne2ne | 8 |" in text and "makes more of the updates" in text


def test_memory_of_a_gpu_is_shown_where_one_was_used(params: Params) -> None:
    write_cost("train@denoise-vanilla-0", 20.0, 1000, 3000)
    write_cost("train@denoise-noise_space-0", 50.0, 1250, 7000)
    write_cost("synthesize@denoise", 1.0, 300)
    write_report(params, OUT)
    text = (OUT / "cost.md").read_text()
    assert "| Memory against vanilla | GPU memory (MiB) | Parameters thrown away |" in text
    assert "| 50.0 | 2.50 x | 1,250 | 1.25 x | 7,000 | - |" in text
    assert "| synthesize@denoise | 1.0 | 300 | - |" in text
    assert re.search(r"\| total of 3 of \d+ stages \| 71.0 \| 1,250 \| 7,000 \|", text)


def test_cost_over_seeds_needs_every_record(params: Params) -> None:
    two = dataclasses.replace(params, seeds=(0, 1))
    write_cost("train@denoise-vanilla-0", 20.0, 1000)
    assert method_costs(two)[0].wall_s is None
    write_cost("train@denoise-vanilla-1", 30.0, 900)
    found = method_costs(two)[0]
    assert (found.wall_s, found.peak_memory_mib, found.wall_ratio) == (25.0, 1000, 1.0)


@pytest.mark.parametrize("second", [None, "\n"], ids=["missing", "empty"])
def test_timings_over_seeds_need_every_record(params: Params, second: str | None) -> None:
    two = dataclasses.replace(params, seeds=(0, 1))
    write_timings(Run(TASK, "vanilla", 0), (0.2, 0.1), (0.4, 0.3))
    if second is not None:
        write_text(Run(TASK, "vanilla", 1).timings, second)
    found = method_costs(two)[0]
    assert (found.step_s, found.step_ratio, found.waiting_share) == (None, None, None)
    write_cost_page(two, OUT)
    assert "| denoise, vanilla | 4 | - | - | - |" in (OUT / "cost.md").read_text()
    write_timings(Run(TASK, "vanilla", 1), (1.0, 0.5))
    found = method_costs(two)[0]
    assert (found.step_s, found.step_ratio, found.waiting_share) == (0.4, 1.0, 0.3)


def test_stage_names_are_those_of_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = {stage.addressing for stage in Repo(str(ROOT)).index.stages} - {"report"}
    monkeypatch.chdir(ROOT)
    assert set(stage_names()) == stages


def test_every_protocol_is_explained() -> None:
    assert set(PROTOCOLS) == set(KNOWN_PROTOCOLS)


def test_commit_is_that_of_code_and_settings(tmp_path: Path, monkeypatch: Any) -> None:
    enter(tmp_path, monkeypatch)
    assert code_state().commit is None
    write_text(Path("pipeline/code.py"), "1")
    write_text(Path("params.yaml"), "1")
    git("init", "--quiet")
    commit("code")
    code = git("rev-parse", "HEAD")
    write_text(Path("README.md"), "results and documents change no report")
    commit("documents")
    assert git("rev-parse", "HEAD") != code
    found = code_state()
    assert (found.commit, found.modified, found.params_modified) == (code, False, False)
    write_text(Path("params.yaml"), "2")
    assert (code_state().modified, code_state().params_modified) == (False, True)
    commit("settings")
    for path in (Path("stages/new.py"), Path("requirements.lock")):
        write_text(path, "2")
        assert code_state().modified and not code_state().params_modified
        commit(path.name)
        assert code_state().commit == git("rev-parse", "HEAD")
        assert not code_state().modified


def test_rebuilding_is_told(params: Params) -> None:
    assert "This was not run in a git repository" in markdown(params)
    write_text(Path("dvc.yaml"), "stages: {}")
    git("init", "--quiet")
    commit("all")
    head = git("rev-parse", "HEAD")
    text = markdown(params)
    assert f"git checkout {head} && dvc repro" in text
    assert "modified after that commit" not in text
    assert f"git checkout {head} &amp;&amp; dvc repro" in (OUT / "report.html").read_text()
    write_text(Path("params.yaml"), "committed")
    commit("settings")
    head = git("rev-parse", "HEAD")
    write_text(Path("params.yaml"), "not committed")
    start = f"git stash && git checkout {head} && cp reports/tables/params.yaml params.yaml"
    assert f"{start} && dvc repro\n" in markdown(params)
    assert (OUT / "tables" / "params.yaml").read_text() == "not committed"
    commands = (OUT / "tables" / "commands.csv").read_text()
    assert f"{start} && dvc repro evaluate@denoise-vanilla-0\n" in commands
    commit("settings as well")
    assert "git stash" not in markdown(params)
    assert not (OUT / "tables" / "params.yaml").exists()
    write_text(Path("dvc.yaml"), "changed: {}")
    assert summary(params)[0]["code_modified"] is True
    assert (
        "Code or requirements.lock was modified after that commit"
        in (OUT / "report.md").read_text()
    )


def git(*arguments: str) -> str:
    person = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    done = subprocess.run(["git", *person, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(message: str) -> None:
    git("add", "--all")
    git("commit", "--quiet", "--message", message)


def runs(params: Params) -> list[Run]:
    trained = [Run(TASK, method, seed) for method in params.methods for seed in params.seeds]
    return [Run(TASK, DEGRADED), *trained]
