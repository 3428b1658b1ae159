"""The benchmarks run and measure what they say."""

import argparse
import json
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import (
    demo_step,
    evaluation,
    folder_source,
    forces,
    joint_step,
    packing,
    restore_large,
    restorers,
    scheduling,
    startup,
)
from benchmarks.crop_reading import measure
from benchmarks.steps import SIZES, USUAL_VARIANTS, build_step
from pipeline.config.compose import compose
from pipeline.config.read import read_params
from pipeline.images.store import ImageStore, Record, write_store
from pipeline.models.restorers.unet import UNet
from pipeline.models.weights import save_tensors
from pipeline.runtime.paths import COSTS, STATE_FILE, pretrained, task_images
from pipeline.training.loop import train
from tests.helpers.training_job import VANILLA, job, write_images

ARGUMENTS = argparse.Namespace(
    size="tiny", repeats=1, steps=1, threads=1, profile=True, variants=USUAL_VARIANTS
)


def test_joint_step_measures_every_variant(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run_here(part: str, arguments: argparse.Namespace) -> dict[str, Any]:
        given = argparse.Namespace(**{**vars(arguments), "part": part})
        values: dict[str, Any] = json.loads(json.dumps(joint_step.PARTS[part](given)))
        return values

    monkeypatch.setattr(joint_step, "_in_own_process", run_here)
    monkeypatch.setenv("COLUMNS", "200")  # else long names are cut
    result = joint_step.measure(ARGUMENTS)
    assert result["flops"] > 0
    for repeat in result["repeats"]:
        for variant in USUAL_VARIANTS:
            assert repeat[variant]["before_mib"] > 0
            assert repeat[variant]["peak_mib"] > 0
            assert repeat[variant]["seconds"] > 0
    for kinds in result["profile"].values():
        assert kinds["convolution forward"] > 0
        assert kinds["convolution backward"] > 0
    joint_step.show(result)
    shown = capsys.readouterr().out
    assert all(variant in shown for variant in USUAL_VARIANTS)


def test_restore_large_measures_every_kind_beside_a_plain_loop(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    kinds = ["jpeg", "png16"]
    restore_large.main(["--megapixels", "0.1", "--kinds", *kinds, "--threads", "1",
                        "--json", str(tmp_path / "rows.json")])  # fmt: skip
    rows = json.loads((tmp_path / "rows.json").read_text())
    expected = [(kind, 1, way) for kind in kinds for way in ("restore", "loop")]
    assert [(row["kind"], row["threads"], row["way"]) for row in rows] == expected
    assert all(row["seconds"] > 0 and row["peak_mib"] > 10 for row in rows)
    assert capsys.readouterr().out.count("png16") == 2


def test_variants_make_the_same_step() -> None:
    losses = {}
    for variant in USUAL_VARIANTS:
        step = build_step(variant, SIZES["tiny"])
        losses[variant] = statistics.mean(step() for _ in range(20))
    torch.use_deterministic_algorithms(False)
    # the random draws differ, so only the means agree
    assert losses["fp32"] == pytest.approx(losses["plain"], rel=0.03)
    for variant in USUAL_VARIANTS[2:]:
        assert losses[variant] == pytest.approx(losses["fp32"], rel=0.03)


def test_crop_reading_reads_the_same_crops_both_ways(tmp_path: Path) -> None:
    rates = measure(tmp_path, images=2, crops=8, repeats=2)
    assert set(rates) == {"store", "png"}
    assert all(len(values) == 2 and min(values) > 0 for values in rates.values())


def test_packing_is_measured_with_bounded_memory(tmp_path: Path) -> None:
    row = packing.measure(tmp_path / "work", images=3, height=300, width=600)
    assert row["packed_mb"] > row["decoded_mb"] == 3 * 300 * 600 * 3 / 1e6  # crops overlap
    assert row["peak_mib"] >= row["before_mib"] > 0
    assert min(row.values()) > 0


def test_packing_many_tiny_images_is_measured(tmp_path: Path) -> None:
    row = packing.measure_tiny(tmp_path / "work", pairs=60)
    assert row["pairs"] == 60 and min(row.values()) > 0
    assert len(ImageStore(tmp_path / "work" / "prepared" / "set" / "real.h5")) == 60


def test_the_folder_source_is_measured(tmp_path: Path) -> None:
    folder_source.write_small(tmp_path / "small" / "clean", 30)
    folder_source.write_large(tmp_path / "large" / "clean", 0.5)
    for folder in ("small", "large"):
        costs = folder_source.measure(tmp_path / folder)
        assert set(costs) == {"reading", "download", "prepare"}
        assert all(cost.seconds > 0 and cost.peak_mib >= cost.before_mib for cost in costs.values())


def test_evaluation_gives_the_same_numbers_every_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    facts = {"restorer": {"kind": "unet", "levels": 2, "channels": 4}, "image_range": [0.0, 1.0]}
    save_tensors(Path("model"), UNet(levels=2, channels=4).state_dict(), facts)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 40, 3), np.uint8)
    record = Record("a", "s", "d", 32, 40, lambda: pixels[0], lambda: pixels[1])
    write_store(Path("one.h5"), [record])
    evaluation.repeat_images(Path("one.h5"), 3, Path("test.h5"))
    found = evaluation.measure(Path("model"), Path("test.h5"), threads=1, processes=1, repeats=1)
    assert len(found) == 5
    for name, values in found.items():
        assert min(values["rates"]) > 0
        if name not in ("one by one", "the same in bf16"):
            assert max(values["psnr"], values["ssim"]) <= evaluation.ROUNDING
    assert evaluation.disagreeing(found) == []
    equal = {"rates": [1.0], "psnr": 0.0, "ssim": 0.0, "mean_psnr": 0.0}
    assert evaluation.agreement(equal) == "numbers equal to the last digit"
    apart = {**equal, "psnr": 2e-6}
    assert evaluation.agreement(apart).startswith("numbers differ by at most 2.0e-06 dB, 0.0e+00;")
    ways = {"one by one": {"rates": [1.0]}, "batches": apart, "the same in bf16": apart}
    assert evaluation.disagreeing(ways) == ["batches"]


def test_a_restorer_is_measured() -> None:
    cost = restorers.measure("unet_tiny", 32)
    assert cost.parameters == 32_875
    assert cost.gmacs == restorers.measure("unet_tiny", 64).gmacs, "of 128 pixels, as in the report"
    assert cost.gmacs > 0 and cost.training_images_s > 0 and cost.restoring_images_s > 0


def test_forces_are_those_of_the_gradients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = "methods=[vanilla,dann,dsn,cycada]"
    compose(["preset=tiny", "tasks=[denoise]", "train.patch=16", chosen], Path("params.yaml"))
    params = read_params()
    images, state = task_images("denoise"), pretrained("denoise", 0)
    write_images(images)
    train(job(images, state, VANILLA, restorer=params.restorer, last_step=2, keeps="state"))
    found = forces.measure(params, "denoise", 0, state / STATE_FILE)
    assert {name: set(losses) for name, losses in found.items()} == {
        "dann": {"restoration", "domain"},
        "dsn": {"restoration", "reconstruction", "difference", "domain"},
        "cycada": {"restoration", "restoration_made", "feature_domain"},
    }
    assert all(norm > 0 for losses in found.values() for norm in losses.values())
    alike = [losses["restoration"] for losses in found.values()]
    assert alike == pytest.approx([alike[0]] * 3)
    # a new generator changes nothing: the made images are the synthetic ones
    assert found["cycada"]["restoration_made"] == pytest.approx(alike[0])
    methods = {name: replace(params.methods[name], weight=0.5) for name in ("dann",)}
    again = forces.measure(replace(params, methods=methods), "denoise", 0, state / STATE_FILE)
    assert again["dann"] == found["dann"], "told at weight 1, whatever the weight"


def test_parts_of_an_update_of_the_demo_sum_to_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    compose(
        ["preset=tiny", "tasks=[denoise]", "train.patch=16", "train.steps=20"], Path("params.yaml")
    )
    images, state = task_images("denoise"), pretrained("denoise", 0)
    write_images(images)
    last = read_params().train.pretrain_steps
    start = job(
        images, state, VANILLA, restorer=read_params().restorer, last_step=last, keeps="state"
    )
    train(start)
    found = {(m, 1): demo_step.measure("denoise", m, 1, updates=2) for m in demo_step.METHODS}
    for parts in found.values():
        whole, floor = parts.pop("whole"), parts.pop("floor")
        assert sum(parts.values()) == pytest.approx(whole) and floor > 0
        assert min(parts["data"], parts["restorer forward"], parts["restorer backward"]) > 0
        parts |= {"whole": whole}
    demo_step.show(found)
    assert "noise_space / vanilla, 1 thread(s)" in capsys.readouterr().out


def test_startup_times_commands_that_have_nothing_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ran: list[str] = []

    def copy_tracked(overrides: list[str], folder: Path) -> None:
        assert overrides == ["preset=tiny"]
        costs = folder / "reports" / "costs"
        costs.mkdir(parents=True)

    def run(command: list[str], folder: Path, expected: tuple[int, ...]) -> str:
        if not ran:
            assert not (folder / "reports").exists(), "nothing that was there counts"
            for number in range(2):
                path = folder / COSTS / f"{number}.json"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text('{"wall_s": 1.5}')
        ran.append(command[0])
        return ""

    monkeypatch.setattr(startup, "copy_tracked", copy_tracked)
    monkeypatch.setattr(startup, "run", run)
    found = startup.measure(["preset=tiny"], 2, tmp_path / "copy")
    assert found["its stages, as they say"] == 3.0
    assert set(startup.COMMANDS) < set(found) and len(ran) == 1 + 2 * len(startup.COMMANDS)


def test_scheduling_runs_both_in_turn_in_fresh_copies(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []

    def copy_tracked(overrides: list[str], folder: Path) -> None:
        assert overrides == ["preset=tiny"]
        (folder / "reports").mkdir(parents=True)

    def run(command: list[str], folder: Path, expected: tuple[int, ...]) -> str:
        assert not (folder / "reports").exists(), "no result of an earlier run"
        ran.append(command[0])
        return ""

    monkeypatch.setattr(scheduling, "copy_tracked", copy_tracked)
    monkeypatch.setattr(scheduling, "run", run)
    times = scheduling.measure(["preset=tiny"], 2, 2, tmp_path / "copy")
    assert ran == ["dvc", "snakemake"] * 2
    assert {name: len(rows) for name, rows in times.items()} == {
        "dvc repro": 2, "snakemake --cores 2": 2,
    }  # fmt: skip
    scheduling.show({"a": [(1.0, 2.0)], "b": [(2.0, 5.0)]})
    assert "2.00       2.50" in capsys.readouterr().out
