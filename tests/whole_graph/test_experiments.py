"""The commands of docs/experiments.md, run as they stand there, on one task of the tiny preset."""

import csv
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.workspace import ROOT, Workspace, copy, processes, recipe, stages_run

pytestmark = pytest.mark.graph

PAGE = "experiments.md"
OF_NOISE_SPACE = {"train@denoise-noise_space-0", "evaluate@denoise-noise_space-0", "report"}


@pytest.fixture(scope="module")
def workspace(finished: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    yield (copied := copy(finished, tmp_path_factory.mktemp("experiments") / "work"))
    copied.run("dvc", "queue", "stop", "--kill")


def names(workspace: Workspace) -> set[str]:
    return set(workspace.succeed("dvc", "exp", "list", "--name-only").split())


def test_one_is_run_compared_undone_and_kept(workspace: Workspace) -> None:
    before = workspace.hashes()
    assert (
        stages_run(workspace.succeed(*recipe(PAGE, "dvc exp run --name wider"))) == OF_NOISE_SPACE
    )
    wider = workspace.hashes()
    assert wider != before
    shown = workspace.succeed(*recipe(PAGE, "dvc exp show"))
    assert "wider" in shown and "margin" in shown
    compared = workspace.succeed(*recipe(PAGE, "dvc exp diff"))
    assert re.search(r"margin\W+0\.1\W+0\.2", compared), compared

    workspace.succeed(*recipe(PAGE, "git restore --source HEAD"))
    assert workspace.hashes() == before
    assert stages_run(workspace.succeed("dvc", "repro")) == set()

    workspace.succeed(*recipe(PAGE, "dvc exp apply wider"))
    assert workspace.hashes() == wider
    assert "up to date" in workspace.succeed("dvc", "status")
    workspace.succeed(*recipe(PAGE, "dvc exp save"))
    workspace.succeed(*recipe(PAGE, "dvc exp branch"))
    assert names(workspace) == {"wider", "by-hand"}
    workspace.succeed(*recipe(PAGE, "dvc exp remove"))
    assert names(workspace) == {"wider"}

    workspace.succeed("git", "checkout", "--force", "try-wider")
    workspace.succeed("dvc", "checkout")
    assert stages_run(workspace.succeed("dvc", "repro")) == set()
    workspace.succeed("git", "checkout", "--force", "main")
    workspace.succeed("dvc", "checkout")
    assert workspace.hashes() == before


def test_a_killed_copy_goes_on_from_the_checkpoints_outside_of_it(workspace: Workspace) -> None:
    before = (workspace.folder / "params.yaml").read_bytes()

    def saved(output: str) -> bool:
        return any((workspace.folder / ".checkpoints").glob("*/state.safetensors"))

    workspace.kill_when(saved, *recipe(PAGE, "PIPELINE_CHECKPOINTS"))
    assert "apart" not in names(workspace)
    output = workspace.succeed(*recipe(PAGE, "PIPELINE_CHECKPOINTS"))
    assert "going on from step" in output
    assert "apart" in names(workspace)
    assert (workspace.folder / "params.yaml").read_bytes() == before
    assert "up to date" in workspace.succeed("dvc", "status")


@pytest.mark.slow
def test_a_queue_runs_two_at_once(workspace: Workspace) -> None:
    queue = recipe(PAGE, "dvc exp run --queue")
    former = workspace.folder.parent / "before it was moved" / ".cache/dvc"
    workspace.succeed("dvc", "config", "--local", "core.site_cache_dir", str(former))
    workspace.succeed(*queue[:-1], f"{queue[-1]} -S resources.gpu=1")
    named = workspace.succeed("dvc", "config", "core.site_cache_dir").strip()
    assert named == str(workspace.folder / ".cache/dvc")
    kept = f"PIPELINE_CHECKPOINTS={workspace.folder / '.checkpoints'}"
    gpus = "CUDA_VISIBLE_DEVICES=5,7"  # there are none, but they can be divided
    start = recipe(PAGE, "dvc queue start")
    quiet = f"{start[-1]} > queue.log 2>&1"  # the workers inherit it: a pipe would stay open
    workspace.succeed("env", kept, gpus, *start[:-1], quiet)
    deadline, at_once = time.monotonic() + 600, 0
    while "Success" not in (status := workspace.succeed(*recipe(PAGE, "dvc queue status"))) or (
        status.count("Success") < 2
    ):
        assert "Failed" not in status and time.monotonic() < deadline, status
        copies = f"{workspace.folder}/.dvc/tmp/exps/tmp"
        working = {place for place in processes().values() if place.startswith(copies)}
        at_once = max(at_once, len(working))
        time.sleep(0.5)
    assert {"margin-1", "margin-2"} <= names(workspace)
    assert at_once == 2, "each in a copy of its own"
    taken = {path.name for path in (workspace.folder / ".snakemake/dvc/gpus").iterdir()}
    assert taken and taken <= {"5", "7"}, "in the project, where all can see what is taken"
    assert "train@denoise-noise_space-0" in workspace.succeed(*recipe(PAGE, "dvc queue logs"))
    workspace.succeed(*recipe(PAGE, "dvc queue stop"))
    commits = ["main", *(_commit(workspace, name) for name in ("margin-1", "margin-2"))]
    assert len({_model(workspace, commit) for commit in commits}) == 3


def _model(workspace: Workspace, revision: str) -> str:
    lock = workspace.succeed("git", "show", f"{revision}:dvc.lock")
    found = re.search(r"noise_space-0/model\.safetensors\s+hash: md5\s+md5: (\w+)", lock)
    assert found
    return found[1]


def _commit(workspace: Workspace, name: str) -> str:
    listed = workspace.succeed("git", "for-each-ref", "refs/exps")
    (commit,) = re.findall(rf"^(\w+) .*/{name}$", listed, re.MULTILINE)
    return str(commit)


def test_every_command_of_the_page_is_run() -> None:
    modules = ("whole_graph/test_experiments.py", "docs/test_sharing.py")
    tests = "".join((ROOT / "tests" / name).read_text() for name in modules)
    started = re.findall(r'recipe\((?:PAGE|"experiments.md"), "([^"]+)"', tests)
    page = (ROOT / "docs" / PAGE).read_text()
    commands = [line.strip() for line in page.splitlines() if line.startswith("    ")]
    assert len(commands) >= 15
    unused = [c for c in commands if not any(c.startswith(start) for start in started)]
    assert unused == ["export PIPELINE_CHECKPOINTS=$PWD/.checkpoints"]


def test_the_printed_command_rebuilds_a_number_of_an_experiment(
    finished: Workspace, tmp_path: Path
) -> None:
    """Two seeds, of which the commit knows one; the results of before stand in the way of git."""
    workspace = copy(finished, tmp_path / "work")
    workspace.succeed("dvc", "exp", "run", "-S", "seeds=[0,1]")
    with (workspace.folder / "reports/tables/commands.csv").open(newline="") as file:
        commands = {(row["Restorer"], row["Seed"]): row["Command"] for row in csv.DictReader(file)}
    evaluation = "data/evaluations/denoise/noise_space-1"
    made = workspace.hashes()[evaluation]
    workspace.succeed("git", "stash")
    assert evaluation not in workspace.hashes()
    workspace.succeed("git", "stash", "pop")
    workspace.succeed("sh", "-c", commands["noise_space", "1"])
    assert workspace.hashes()[evaluation] == made
    assert "seeds:\n- 0\n- 1\n" in (workspace.folder / "params.yaml").read_text()
