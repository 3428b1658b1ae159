"""The report on a small workspace whose numbers are known by hand."""

import csv
import dataclasses
import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from pipeline.config.compose import compose
from pipeline.config.methods import (
    ReleasedSettings,
    ReleasedWeights,
    TargetSupervisedSettings,
)
from pipeline.config.params import Params
from pipeline.config.read import read_params
from pipeline.evaluation.evaluate import ImageScore
from pipeline.images.pixels import Pixels
from pipeline.images.store import Record, write_store
from pipeline.report.collect import collect
from pipeline.report.page import write_report
from pipeline.report.summary import SAID
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
        # the last column, of NIQE, is written only where it was measured
        writer.writerow([field.name for field in dataclasses.fields(ImageScore)][:-1])
        writer.writerows(dataclasses.astuple(row)[:-1] for row in rows)


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
    write_report(params, Path("after"))
    assert files(Path("after")) == files(Path("before"))


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


def write_cost(stage: str, wall_s: float, memory_mib: int, gpu_mib: int | None = None) -> None:
    record = {
        "stage": stage, "wall_s": wall_s, "peak_memory_mib": memory_mib,
        "peak_gpu_memory_mib": gpu_mib,
    }  # fmt: skip
    write_text(COSTS / f"{stage}.json", json.dumps(record))


def write_timings(run: Run, *rows: tuple[float, float]) -> None:
    lines = [f"{step},{seconds},{waiting}" for step, (seconds, waiting) in enumerate(rows)]
    write_text(run.timings, "\n".join(["step,seconds_per_step,waiting_share", *lines]) + "\n")


def runs(params: Params) -> list[Run]:
    trained = [Run(TASK, method, seed) for method in params.methods for seed in params.seeds]
    return [Run(TASK, DEGRADED), *trained]
