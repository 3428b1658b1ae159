"""The curves of a training in a terminal."""

import math
from pathlib import Path

import pytest

from pipeline.commands.watch import curve, main
from pipeline.runtime.errors import UserError
from pipeline.training.log import TrainingLog


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7], "▁▂▃▄▅▆▇█"),
        ([7, 0], "█▁"),
        ([2, 2, 2], "▁▁▁"),
        ([math.nan, 1, math.nan, 2], "▁█"),
        ([math.nan], ""),
    ],
)
def test_a_curve_goes_from_its_lowest_to_its_highest(values: list[float], expected: str) -> None:
    assert curve(values) == expected


def test_a_long_curve_is_averaged() -> None:
    assert curve([0, 2, 8, 6], width=2) == "▁█"
    assert curve([float(n) for n in range(1000)], width=8) == "▁▂▃▄▅▆▇█"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A run whose log the training's own class has written: its second term begins late."""
    monkeypatch.chdir(tmp_path)
    log = TrainingLog()
    for step, terms in ((20, {"total": 0.5}), (40, {"total": 0.25, "positive_error": 0.75})):
        log.add(terms)
        log.close_interval(step, step * 8, 1e-4, {"psnr_real": 24.5} if step == 40 else {})
    folder = tmp_path / "data" / "models" / "denoise" / "noise_space-0"
    folder.mkdir(parents=True)
    (folder / "log.csv").write_text(log.to_csv())
    return "denoise/noise_space-0"


@pytest.mark.parametrize("prefix", ["", "data/models/"])
def test_last_values_stand_beside_the_curve(
    run: str, prefix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([prefix + run]) == 0
    lines = [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith("│")
    ]
    assert lines == [
        ["learning_rate", "▁▁", "0.0001", "0.0001"],
        ["total", "█▁", "0.5", "0.25"],
        ["positive_error", "▁", "", "0.75"],
        ["psnr_real", "▁", "", "24.5"],
    ]


def test_only_the_last_rows_are_asked_for(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    main([run, "--rows", "1"])
    printed = capsys.readouterr().out
    assert "0.25" in printed and "0.5 " not in printed


def test_a_run_that_is_not_there_names_those_that_are(run: str) -> None:
    with pytest.raises(UserError, match=r"no log\.csv; .*\(found: denoise/noise_space-0\)"):
        main(["denoise/vanilla-0"])


def test_a_log_without_rows_says_when_one_comes(run: str, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("step,total\n")
    with pytest.raises(UserError, match=r"log\.csv: no row yet"):
        main([str(tmp_path)])


@pytest.mark.parametrize("text", [b"\x93\xff", b"step,loss\n1,abc\n", b"loss\n1\n"])
def test_another_file_is_named(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "log.csv").write_bytes(text)
    with pytest.raises(UserError, match=r"log\.csv: found another file, expected a training's log"):
        main([str(tmp_path)])
