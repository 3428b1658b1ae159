"""The graph of one task, run by DVC: complete, up to date, mended, changed in one setting."""

import json
import re
from pathlib import Path

import pytest

from tests.helpers.workspace import Workspace, copy, stages_run

METHODS = ("vanilla", "noise_space")


@pytest.fixture
def own(finished: Workspace, tmp_path: Path) -> Workspace:
    """A finished clone that a test may change."""
    return copy(finished, tmp_path / "own")


def test_summary_has_a_row_for_every_number(finished: Workspace) -> None:
    rows = json.loads((finished.folder / "reports" / "summary.json").read_text())
    rows = [row for row in rows if row["domain"] == "real"]  # as many are of the synthetic one
    named = {(row["task"], row["method"], row["seed"]) for row in rows}
    assert named == {("denoise", "degraded", None)} | {("denoise", name, 0) for name in METHODS}
    for row in rows:
        assert row["simulated"] and "simulated real" in row["data_set"]
        assert (row["protocol"], row["images"], row["scenes"]) == ("sidd", 48, 12)
        assert 5 < row["psnr"] < 60 and -1 < row["ssim"] < 1


def test_report_names_what_it_shows(finished: Workspace) -> None:
    markdown = (finished.folder / "reports" / "report.md").read_text()
    page = (finished.folder / "reports" / "report.html").read_text()
    for text in (markdown, page):
        assert "simulated real" in text
        assert all(name in text for name in ("denoise", *METHODS, "degraded"))
    assert not re.search(r'(src|href)="https?://', page), "opens without a network"


def test_nothing_to_do_the_second_time(own: Workspace) -> None:
    assert stages_run(own.succeed("dvc", "repro")) == set()
    assert "up to date" in own.succeed("dvc", "status")


def test_metrics_plots_and_experiments_can_be_read(own: Workspace) -> None:
    shown = own.succeed("dvc", "metrics", "show", "--md")
    assert "denoise/noise_space-0.json" in shown
    assert "psnr" in shown
    assert "psnr" in own.succeed("dvc", "exp", "show", "--md")
    plots = json.loads(own.run("dvc", "plots", "show", "--json").stdout)
    assert "errors" not in plots
    assert "data/models/denoise/noise_space-0/log.csv" in plots["data"]
    assert "reports/summary.json" in plots["data"]


def test_half_a_lock_file_costs_no_training(own: Workspace) -> None:
    lock = own.folder / "dvc.lock"
    before, text = own.hashes(), lock.read_text()
    lock.write_text(text[: text.index("cmd:", len(text) // 2)])
    assert own.run("dvc", "repro").returncode != 0, (
        "DVC mends it now: drop pipeline/workflow/mend_lock.py"
    )
    own.succeed("python", "-m", "pipeline", "mend_lock")
    # its output persists, so DVC looks for no earlier run of it; it fetches nothing anew
    assert stages_run(own.succeed("dvc", "repro")) == {"download@skimage"}
    assert own.hashes() == before


def test_one_method_setting_reruns_one_method(own: Workspace) -> None:
    margin = "methods.noise_space.margin=0.2"
    output = own.succeed("dvc", "exp", "run", "-S", "preset=tiny", "-S", margin)
    touched = {f"{verb}@denoise-noise_space-0" for verb in ("train", "evaluate")}
    assert stages_run(output) == touched | {"report"}


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.steps=many", r"train.steps: found 'many' \(str\), expected a whole number"),
        ("+train.stepz=5", r"train.stepz: unknown key, did you mean 'steps'\?"),
        ("evaluate.tile=1", "evaluate.tile: found 1, expected a number of at least 32"),
    ],
)
def test_a_wrong_value_stops_before_any_work(own: Workspace, override: str, message: str) -> None:
    before = own.hashes()
    done = own.run("dvc", "exp", "run", "-S", "preset=tiny", "-S", override)
    printed = done.stdout + done.stderr
    assert done.returncode != 0
    assert re.search(message, printed), printed
    assert "Traceback" not in printed
    assert own.hashes() == before, "nothing already made is lost"
