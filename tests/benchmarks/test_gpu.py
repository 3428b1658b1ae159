"""``benchmarks.gpu``: every section here on small sizes, and on a GPU where there is one."""

import itertools
import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import benchmarks.gpu.__main__ as command
import benchmarks.gpu.sections
from benchmarks.gpu import demo, golden, hours, processes, restoring, updates, waiting
from benchmarks.gpu.setup import Findings, Row, Section, Setup, how_to_carry
from pipeline.config.running import Train
from pipeline.device import Precision

CUDA = pytest.param(
    "cuda",
    marks=[
        pytest.mark.gpu,
        pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine"),
    ],
)
DEVICES = pytest.mark.parametrize("device", ["cpu", CUDA])
SLOW_HERE = pytest.param("cpu", marks=pytest.mark.slow)


def setup(device: Any, folder: Path) -> Setup:
    return Setup(device, "tiny", folder, time.monotonic() + 600)


@DEVICES
@pytest.mark.parametrize("what", ["loss", "restorer", "denoiser"])
@pytest.mark.parametrize("precision", golden.TOLERANCES)
def test_the_authors_numbers_hold(precision: Precision, what: str, device: str) -> None:
    rows = list(golden.compare(torch.device(device), precision, what))
    assert rows and not any(row["failed"] for row in rows), rows


def test_a_wrong_number_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    read = golden._read

    def spoiled(name: str) -> dict[str, torch.Tensor]:
        values = read(name)
        return {k: v * 1.01 if k == "restored" else v for k, v in values.items()}

    monkeypatch.setattr(golden, "_read", spoiled)
    (row,) = golden.compare(torch.device("cpu"), "fp32", "restorer")
    assert row["failed"]


@DEVICES
def test_updates_are_measured(device: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updates, "WARM_UP", 1)
    monkeypatch.setattr(updates, "TIMED", 1)
    kept = ("plain: four passes, fp32", "bf16", "bf16, checkpointing", "vanilla, bf16")
    monkeypatch.setattr(updates, "ROWS", {name: updates.ROWS[name] for name in kept})
    rows = list(updates.measure(setup(device, tmp_path), {}))
    made = {(row["update"], row["batch"]) for row in rows if "batch" in row}
    assert made >= set(itertools.product(kept, [2])) | {("bf16", 1), ("bf16", 4)}
    for row in rows:
        assert row["TFLOP/s"] > 0
        if "batch" in row:
            assert row["images/s"] == pytest.approx(1000 * row["batch"] / row["ms"])
            assert (row["peak GiB"] is None) == (device == "cpu")


def test_growing_batches_end_where_memory_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(variant: Any, size: Any, device: Any) -> Any:
        def run() -> None:
            if size.batch > 2:
                raise torch.OutOfMemoryError("CUDA out of memory")

        return run

    monkeypatch.setattr(updates, "_step", step)
    monkeypatch.setattr(updates, "own_rate", lambda *given: 1e9)
    rows = list(updates.measure(setup("cpu", tmp_path), {}))
    full = [row for row in rows if "out of memory" in row]
    assert [(row["update"], row["batch"]) for row in full] == [
        ("bf16", 4), ("bf16, checkpointing", 4),
    ]  # fmt: skip


def test_flops_of_an_image_are_the_papers() -> None:
    """12.44 GMACs twice and 51.49 twice, 2 FLOPs each, backward twice forward."""
    found = updates.flops_of_image(updates.SIZES["paper"], adapts=True)
    assert found / 1e9 == pytest.approx(3 * 2 * 2 * (12.44 + 51.49), rel=1e-3)


@pytest.mark.parametrize("device", [SLOW_HERE, CUDA])
def test_a_training_repeats_and_waits(device: str, tmp_path: Path) -> None:
    given = setup(device, tmp_path)
    rows = list(waiting.measure_repeating(given, {}))
    assert len(rows) == 4 and not any(row["failed"] for row in rows)
    waits = list(waiting.measure_waiting(given, {}))
    assert [row["workers"] for row in waits] == [0, 2]
    assert all(0 <= row["share of it waiting for data"] <= 1 for row in waits)


@pytest.mark.parametrize("device", [SLOW_HERE, CUDA])
def test_two_processes_have_the_gradient_of_one(device: str, tmp_path: Path) -> None:
    rows = list(processes.measure(setup(device, tmp_path), {}))
    assert rows and not any(row["failed"] for row in rows), rows


@pytest.mark.parametrize("device", [SLOW_HERE, CUDA])
def test_the_demo_is_trained_and_scored(device: str, tmp_path: Path) -> None:
    rows = list(demo.measure(setup(device, tmp_path), {}))
    scored = [row for row in rows if "PSNR" in row]
    assert {row["stage"].split(" on ")[0] for row in scored} == {"vanilla", "noise_space"}
    assert all(10 < row["PSNR"] < 50 for row in scored)
    assert all(row["PSNR of the processor's run"] > 10 for row in scored)


@DEVICES
def test_restoring_is_measured(device: str, tmp_path: Path) -> None:
    rows = list(restoring.measure(setup(device, tmp_path), {}))
    assert len(rows) == 4 and all(row["megapixels/s"] > 0 for row in rows)


def test_hours_follow_from_the_nearest_row(tmp_path: Path) -> None:
    """By hand: 100 updates of 36 images at 10 a second are 6 minutes, on 2 cards 3."""
    values = {
        "tasks": {"a": 1}, "seeds": [0, 1],
        "train": {"devices": 2, "nodes": 1, "steps": 100, "batch": 36},
    }  # fmt: skip
    found = hours.hours(values, rate=10.0)
    assert found["GPU hours of one"] == pytest.approx(0.1)
    assert found["GPU hours of all"] == pytest.approx(0.2)
    assert found["hours on the clock of one"] == pytest.approx(0.05)
    rows: Findings = {
        updates.TITLE: [
            {"update": "bf16", "batch": 8, "images/s": 100.0},
            {"update": "bf16", "batch": 48, "images/s": 120.0},
            {"update": "bf16", "batch": 96, "out of memory": "yes"},
            {"update": "vanilla, bf16", "batch": 24, "images/s": 900.0},
        ]
    }
    made = list(hours.measure(setup("cpu", tmp_path), rows))
    chosen = {(row["preset"], row["method"]): row["images/s of a card"] for row in made}
    assert chosen[("one_gpu", "noise_space")] == 100.0, "a share of one_gpu is 6"
    assert chosen[("one_gpu", "vanilla")] == 900.0
    assert not any(preset == "paper" for preset, _ in chosen), "tf32 was not measured"


def run_sections(
    sections: list[Section], minutes: float, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[int, dict[str, Any], str]:
    monkeypatch.setattr(benchmarks.gpu.sections, "SECTIONS", sections)
    status = command.run(minutes, folder, None)
    return status, json.loads((folder / "gpu.json").read_text()), (folder / "gpu.md").read_text()


def test_an_error_and_a_cut_end_one_section_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks(given: Setup, before: Findings) -> Any:
        yield {"a": 1.25}
        raise ValueError("of two\nlines")

    def never_ends(given: Setup, before: Findings) -> Any:
        yield {"b": "first"}
        while True:
            time.sleep(0.01)

    def last(given: Setup, before: Findings) -> Any:
        yield {"c": before["Breaks"][0]["a"], "failed": False}

    sections = [
        Section("Breaks", "x", 1, breaks), Section("Never ends", "x", 1, never_ends),
        Section("Last", "x", 8, last),
    ]  # fmt: skip
    status, values, text = run_sections(sections, 0.1, tmp_path, monkeypatch)
    assert status == 1 and capsys.readouterr().err == "error: failed: Breaks\n"
    assert values["rows"] == {
        "Breaks": [{"a": 1.25}], "Never ends": [{"b": "first"}],
        "Last": [{"c": 1.25, "failed": False}],
    }  # fmt: skip
    assert "| 1.25 |" in text and "error: ValueError: of two lines" in text
    assert "Cut: its share of the time was up." in text
    for name in ("driver", "torch", "python", "date"):
        assert f"- {name}: " in text


def test_a_failed_check_is_the_status_and_is_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(given: Setup, before: Findings) -> Any:
        row: Row = {"error": 2.0, "failed": True}
        yield row

    section = Section("Fails", "x", 1, fails)
    status, _, text = run_sections([section], 1, tmp_path, monkeypatch)
    assert status == 1 and "| 2 | **FAILED**" in text


def test_missing_packages_are_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "missing", lambda: ["diffusers", "h5py"])
    assert command.main([]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said == f"error: {how_to_carry(['diffusers', 'h5py'])}\n"
    assert "pip download --dest wheels diffusers h5py" in said


def test_the_settings_of_its_trainings_are_complete() -> None:
    assert isinstance(waiting._settings(2, 16, 4), Train)
