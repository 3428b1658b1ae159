"""README.md: its overrides compose, its files and targets exist, it stays short."""

import re
import shlex
from pathlib import Path

import pytest

from pipeline.compose import CONF, compose

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"(?:^    .+\n)+", README, re.MULTILINE)
COMMANDS = [
    line.strip()
    for block in BLOCKS
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip().startswith(("dvc", "make", "git", "python", "source"))
]
VARIATIONS = [command for command in COMMANDS if command.startswith("dvc exp run")]


def test_commands_are_found() -> None:
    assert len(VARIATIONS) >= 6
    assert {"make reproduce", "make test"} <= {command.split("  ")[0] for command in COMMANDS}


@pytest.mark.parametrize("command", VARIATIONS)
def test_variations_compose(command: str, tmp_path: Path) -> None:
    words = shlex.split(command, comments=True)
    compose([word for word in words[3:] if word != "-S"], tmp_path / "params.yaml")


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("python -m pipeline.")])
def test_modules_and_their_options_exist(command: str) -> None:
    words = shlex.split(command, comments=True)
    module = ROOT / f"{words[2].replace('.', '/')}.py"
    assert module.is_file()
    for option in (word for word in words if word.startswith("--")):
        assert f'"{option}"' in module.read_text(), option


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for command in COMMANDS:
        if command.startswith("make"):
            assert re.search(rf"^{command.split()[1]}:", makefile, re.MULTILINE), command


def test_places_exist() -> None:
    (tree,) = (block for block in BLOCKS if "dvc.yaml    " in block)
    folder = ROOT
    for line in tree.splitlines():
        names = line[4:28].split()
        if line.startswith("    pipeline/"):
            folder = ROOT / "pipeline"
            continue
        for name in names:
            base = folder if line.startswith("      ") else ROOT
            if re.fullmatch(r"[a-z_]+(/|\.py|\.yaml)", name):
                assert (base / name).exists(), name


def test_groups_name_every_choice() -> None:
    for group in ("preset", "tasks", "methods", "restorer", "sources"):
        (row,) = re.findall(rf"^\| `{group}` \|(.*)\|$", README, re.MULTILINE)
        choices = {path.stem for path in (CONF / group).glob("*.yaml")}
        named = set(re.findall(r"`(\w+)`", row))
        assert choices <= named, choices - named


def test_it_is_under_200_lines() -> None:
    assert len(README.splitlines()) < 200
