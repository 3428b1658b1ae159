"""README.md and docs: overrides compose; commands, options, files and targets exist."""

import re
import shlex
from itertools import pairwise
from pathlib import Path

import pytest

from pipeline.commands.vary import arguments
from pipeline.config.compose import CONF, compose

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
TEXT = "\n".join(page.read_text() for page in PAGES)
BLOCKS = re.findall(r"(?:^    .+\n)+", TEXT, re.MULTILINE)
COMMANDS = [
    line.strip()
    for block in BLOCKS
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip().startswith(("dvc", "make", "git", "python", "source", "OMP"))
]
VARIATIONS = [command for command in COMMANDS if command.startswith("dvc exp run")]
KEPT = [command for command in COMMANDS if command.startswith("python -m pipeline vary")]


def test_commands_are_found() -> None:
    assert len(VARIATIONS) >= 6
    assert {"make reproduce", "make test"} <= {command.split("  ")[0] for command in COMMANDS}


@pytest.mark.parametrize("command", VARIATIONS)
def test_variations_compose(command: str, tmp_path: Path) -> None:
    words = shlex.split(command, comments=True)
    overrides = [word for before, word in pairwise(words) if before == "-S"]
    assert overrides
    compose([override.split(",")[0] if "--queue" in words else override for override in overrides],
            tmp_path / "params.yaml")  # fmt: skip


@pytest.mark.parametrize("command", KEPT)
def test_kept_variations_compose(command: str, tmp_path: Path) -> None:
    name, overrides, options = arguments(shlex.split(command, comments=True)[4:])
    assert name == "wider" and all(option for option in options)
    compose(overrides, tmp_path / "params.yaml")


def test_profiles_that_are_named_exist() -> None:
    named = set(re.findall(r"profiles/(\w+)", TEXT))
    assert named == {"default", "slurm"}
    assert all((ROOT / "profiles" / name / "config.yaml").is_file() for name in named)


@pytest.mark.parametrize("command", [c for c in COMMANDS if "python -m " in c])
def test_modules_and_their_options_exist(command: str) -> None:
    (called,) = (part for part in command.split("&&") if "python -m " in part)
    words = shlex.split(called.partition(" -- ")[0], comments=True)
    name = words[words.index("-m") + 1]
    if name == "pipeline":
        following = words[words.index("-m") + 2 :]
        name = f"pipeline.commands.{following[0]}" if following else "pipeline.__main__"
    module = ROOT / f"{name.replace('.', '/')}.py"
    if module.with_suffix("").is_dir():
        module = module.with_suffix("") / "__main__.py"
    assert module.is_file(), name
    for option in (word for word in words if word.startswith("--")):
        assert f'"{option}"' in module.read_text(), option


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_stand_in_a_block(page: Path) -> None:
    """One that is not indented runs into the text, and no other test would find it."""
    lines = page.read_text().splitlines()
    assert not [line for line in lines if line.startswith(("python -m ", "dvc ", "snakemake "))]


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for command in COMMANDS:
        if command.startswith("make"):
            assert re.search(rf"^{command.split()[1]}:", makefile, re.MULTILINE), command


def test_places_exist_and_every_room_has_its_line() -> None:
    (tree,) = (block for block in BLOCKS if "dvc.yaml    " in block)
    named: set[str] = set()
    for line in tree.splitlines():
        below = "pipeline/" if line.startswith("      ") else ""
        places = [word for word in line[4:26].split() if re.fullmatch(r"\w+(/|\.yaml)?", word)]
        assert places, line
        named |= {below + place for place in places}
    missing = [place for place in sorted(named) if not (ROOT / place).exists()]
    assert not missing
    rooms = {f"pipeline/{path.parent.name}/" for path in ROOT.glob("pipeline/*/__init__.py")}
    assert rooms <= named


def test_groups_name_every_choice() -> None:
    page = (ROOT / "docs" / "varying.md").read_text()
    for group in ("preset", "tasks", "methods", "restorer", "sources", "experiment"):
        (row,) = re.findall(rf"^\| `{group}`(?:, a list)? \|(.*)\|$", page, re.MULTILINE)
        choices = {path.stem for path in (CONF / group).glob("*.yaml")}
        named = set(re.findall(r"`(\w+)`", row))
        assert choices <= named, choices - named


def test_it_is_under_200_lines() -> None:
    assert len(README.splitlines()) < 200
