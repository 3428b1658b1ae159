"""docs/settings.md is what the command writes now, and says what the dataclasses say."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from pipeline.config.build import Interval, Setting, build
from pipeline.config.describe import Key, keys, settings_page, shown
from pipeline.config.params import Params

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "settings.md"
COMING_FROM = (ROOT / "docs" / "coming_from.md").read_text()


@dataclass(frozen=True)
class Inner:
    side: Annotated[int, Setting(low=2, unit="pixels")]


@dataclass(frozen=True)
class Sample:
    kind: Literal["sample"]
    mode: Literal["fast", "exact"]
    weight: Annotated[float | None, Setting(low=0, high=1000, unit="factor")]
    sigma: Annotated[Interval, Setting(low=0, high=255)]
    betas: Annotated[tuple[float, float], Setting(high=0.999, ordered=False)]
    widths: Annotated[tuple[int, ...], Setting(low=8)]
    inner: Inner
    maybe: Inner | None
    named: dict[str, Inner]
    texts: dict[str, str]
    on: bool


def test_a_key_has_its_type_range_and_unit() -> None:
    assert list(keys(Sample)) == [
        Key("kind", "`sample`", "", ""),
        Key("mode", "one of `fast`, `exact`", "", ""),
        Key("weight", "number or null", "0 to 1000", "factor"),
        Key("sigma", "interval", "0 to 255", ""),
        Key("betas", "two numbers", "at most 0.999", ""),
        Key("widths", "list of whole numbers", "at least 8", ""),
        Key("inner.side", "whole number", "at least 2", "pixels"),
        Key("maybe", "null, or the keys below", "", ""),
        Key("maybe.side", "whole number", "at least 2", "pixels"),
        Key("named.<name>.side", "whole number", "at least 2", "pixels"),
        Key("texts", "texts by name", "", ""),
        Key("on", "true or false", "", ""),
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "null"), (True, "true"), (300000, "300000"), (1e-6, "1e-06"), ([0, 0.5], "[0, 0.5]")],
)
def test_a_value_is_shown_in_short(value: Any, expected: str) -> None:
    assert shown(value) == expected


def test_the_page_is_current() -> None:
    assert settings_page() == PAGE.read_text(), "run: python -m pipeline settings"


def test_every_key_of_a_run_is_on_the_page(values: dict[str, Any]) -> None:
    """Read off the composed values, so that a class which the page forgot would be missed."""
    build(Params, values, "")
    page = PAGE.read_text()
    sections = {name: values[name] for name in ("train", "evaluate", "report", "resources")}
    sections |= {"restorer": values["restorer"], **values["methods"], **values["tasks"]}
    for section in sections.values():
        for key in leaves(section):
            assert f"`{key}`" in page or f"`{key.rpartition('.')[2]}`" in page, key


def leaves(section: Mapping[str, Any], prefix: str = "") -> list[str]:
    found = []
    for name, value in section.items():
        key = f"{prefix}{name}"
        found += leaves(value, f"{key}.") if isinstance(value, dict) and value else [key]
    return found
