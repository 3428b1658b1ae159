"""What the command writes into README.md: made-up results by hand, and the committed ones."""

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from pipeline.config.read import read_params
from pipeline.report.examples.choice import CROP_PIXELS, Example, Examples, Panel
from pipeline.report.readme import (
    BEGIN,
    END,
    STRIP_BYTES,
    encoded,
    quartiles,
    results,
    with_results,
)
from pipeline.report.results import bounds
from pipeline.runtime.errors import UserError

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
ROWS = json.loads((ROOT / "reports" / "summary.json").read_text())
STRIP = ROOT / "docs" / "strip.webp"


def row(method: str, psnr: float, data_set: str = "phone", task: str = "denoise") -> dict[str, Any]:
    seed = None if method == "degraded" else 0
    return {
        "task": task, "method": method, "seed": seed, "data_set": data_set, "protocol": "sidd",
        "images": 9, "scenes": 3, "psnr_mean_seeds": psnr, "restorer": "unet (levels 3)",
        "steps": 70, "device": "CPU", "commit": "0123456789",
    }  # fmt: skip


MADE_UP = [
    row("degraded", 20.0), row("vanilla", 25.0), row("noise_space", 28.0), row("oracle", 29.0),
    row("degraded", 18.0, "other"), row("vanilla", 24.5, "other"),
    row("noise_space", 24.25, "other"), row("oracle", 26.0, "other"),
]  # fmt: skip


def table(section: str) -> list[list[str]]:
    """Return the cells below the head of the table."""
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_gain_headroom_and_their_ratio() -> None:
    """The bound has learned one domain, so that it is none of the others."""
    section = results(MADE_UP, ["oracle"])
    first, second = table(section)
    assert first == ["denoise, phone", "20.00", "25.00", "28.00", "29.00", "+3.00", "+4.00", "75 %",
                     "*26.58, 34.71 (SIDD)*"]  # fmt: skip
    assert second == ["denoise, other", "18.00", "24.50", "24.25", "26.00", "-0.25", "-", "-", "-"]
    assert "adaptation gains 3.00 dB of the 4.00 dB that training on the truth gains." in section
    assert "9 of 3 scenes; protocol: sidd; restorer: unet (levels 3); updates: 70" in section
    assert "commit: 0123456." in section


def test_a_loss_is_called_one() -> None:
    assert "On denoise, adaptation loses 0.25 dB.**" in results(MADE_UP[4:], [])


def test_only_what_stands_between_the_marks_is_replaced() -> None:
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert with_results(text, "new\n") == f"before\n{BEGIN}\n\nnew\n\n{END}\nafter\n"
    with pytest.raises(UserError, match=r"README\.md: expected the two lines"):
        with_results(f"{END} {BEGIN}", "new")


def test_upper_quartile_and_median_are_chosen() -> None:
    gains = {str(gain): float(gain) for gain in (-1, 7, 3, 1, 5)}
    assert list(quartiles(gains).values()) == ["5", "3"]
    assert list(quartiles({"a": 1.0, "b": 2.0}).values()) == ["b", "a"]


def test_the_strip_is_small_even_of_noise_and_keeps_the_means() -> None:
    generator = np.random.default_rng(0)

    def panel(title: str) -> Panel:
        noise = generator.integers(0, 256, (CROP_PIXELS, CROP_PIXELS, 3), dtype=np.uint8)
        return Panel(title, noise, 30.0)

    titles = ("degraded", "vanilla", "noise_space", "clean")
    shown = tuple(Example(name, name, tuple(map(panel, titles))) for name in ("a", "b"))
    content = encoded(Examples("", shown), {"vanilla": 25.1234567})
    picture = Image.open(io.BytesIO(content))
    assert len(content) < STRIP_BYTES
    assert picture.format == "WEBP" and picture.width > 4 * CROP_PIXELS
    described = picture.getexif()[ExifTags.Base.ImageDescription]
    assert json.loads(described) == {"vanilla": 25.123457}


# What is committed


def test_the_readme_has_the_committed_results(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # where the strip is looked for
    section = results(ROWS, bounds(read_params()))
    assert with_results(README, section) == README, "run: python -m pipeline readme --table"


def test_its_numbers_are_those_of_the_summary() -> None:
    """Read off the page and the file by their own means, not by those that wrote them."""
    between = README.partition(BEGIN)[2].partition(END)[0]
    shown = {cells[0]: cells for cells in table(between)}
    for found in ROWS:
        column = {"degraded": 1, "vanilla": 2, "noise_space": 3, "target_supervised": 4}
        place = column.get(found["method"])
        if place is not None:
            cells = shown[f"{found['task']}, {found['data_set']}"]
            assert cells[place] == f"{found['psnr_mean_seeds']:.2f}"


def test_the_strip_is_of_the_committed_results() -> None:
    if not STRIP.is_file():
        assert not re.search(r"!\[.*\]\(docs/strip", README)
        return
    assert STRIP.stat().st_size < STRIP_BYTES
    means = json.loads(Image.open(STRIP).getexif()[ExifTags.Base.ImageDescription])
    first = ROWS[0]["task"], ROWS[0]["data_set"]
    summary = {
        found["method"]: found["psnr_mean_seeds"]
        for found in ROWS
        if (found["task"], found["data_set"]) == first
    }
    assert means == pytest.approx({name: summary[name] for name in means}, abs=1e-5)
