"""docs/how_a_number_comes_about.md names files and functions that exist, and every stage."""

import ast
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how_a_number_comes_about.md").read_text()
NAMED = re.findall(r"`([\w/]+\.py):([\w.]+)`", PAGE)
STAGES = set(yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"])


def test_something_is_named() -> None:
    assert len(NAMED) > 25


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED)))
def test_what_is_named_exists(file: str, name: str) -> None:
    found: list[ast.stmt] = ast.parse((ROOT / file).read_text()).body
    for part in name.split("."):
        (defined,) = [
            node
            for node in found
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == part
        ]
        found = defined.body


def test_every_stage_on_the_way_is_there() -> None:
    """All but the scores of the input as it is, which no model touches."""
    named = {Path(file).stem for file, _ in NAMED if file.startswith("stages/")}
    assert named == STAGES - {"evaluate_degraded"}


def test_the_picture_is_of_the_graph() -> None:
    picture = (ROOT / "docs" / "graph.svg").read_text()
    drawn = {title.partition("@")[0] for title in re.findall(r"<title>([a-z_]+@?[^<]*)", picture)}
    assert {name for name in drawn if "&#" not in name} == STAGES
    assert len(picture) < 20_000
