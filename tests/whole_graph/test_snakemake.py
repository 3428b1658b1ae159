"""Snakemake and DVC agree to the byte, whichever of them ran what."""

import os
import re
import shutil
from pathlib import Path

import pytest

from benchmarks import graph_size
from tests.helpers.workspace import Workspace, clone, copy, stages_run

MARGIN = "methods.noise_space.margin=0.2"
METHODS = ("vanilla", "noise_space")
OF_NOISE_SPACE = {"train@denoise-noise_space-0", "evaluate@denoise-noise_space-0", "report"}
BEFORE_TRAINING = {"download@skimage", "prepare@skimage", "synthesize@denoise",
                   "evaluate_degraded@denoise"}  # fmt: skip
TRAINED = {"pretrain@denoise-0", "report"} | {
    f"{verb}@denoise-{method}-0" for verb in ("train", "evaluate") for method in METHODS
}

SNAKEMAKE = ("snakemake", "--cores", "2")


@pytest.fixture(scope="module")
def scheduled(one_task: Path) -> Workspace:
    """A clone after a run of Snakemake, committed."""
    workspace = clone(one_task, one_task.parent / "scheduled")
    output = workspace.succeed(*SNAKEMAKE)
    assert stages_run(output) == BEFORE_TRAINING | TRAINED
    workspace.commit("results")
    return workspace


@pytest.fixture
def again(scheduled: Workspace, request: pytest.FixtureRequest) -> Workspace:
    """The same clone, put back afterwards as it was."""

    def put_back() -> None:
        scheduled.succeed("git", "checkout", "--force", ".")
        scheduled.succeed("git", "clean", "--quiet", "--force", "-d")
        scheduled.succeed("dvc", "checkout", "--force")

    request.addfinalizer(put_back)
    return scheduled


def assert_nothing_to_do(workspace: Workspace) -> None:
    assert stages_run(workspace.succeed("dvc", "repro")) == set()
    assert "Nothing to be done" in workspace.succeed("snakemake", "-n")


def assert_the_same_bytes(workspace: Workspace, other: Workspace) -> None:
    assert workspace.hashes() == other.hashes()
    for name in ("summary.json", "metrics/denoise/noise_space-0.json"):  # in git, not in the cache
        path = Path("reports") / name
        assert (workspace.folder / path).read_bytes() == (other.folder / path).read_bytes()


def planned(workspace: Workspace, *options: str) -> set[str]:
    """Return the rules that a dry run names."""
    output = workspace.succeed("snakemake", "-n", *options)
    return set(re.findall(r"^(?:local)?rule (\w+):", output, re.MULTILINE)) - {"all"}


def rules(stages: set[str]) -> set[str]:
    return {re.sub("[@-]", "__", stage) for stage in stages}


def test_nothing_is_left_to_do_after_a_run(scheduled: Workspace) -> None:
    assert "up to date" in scheduled.succeed("dvc", "status")
    assert_nothing_to_do(scheduled)
    assert "Nothing to be done" in scheduled.succeed("snakemake", "-n", "--config", "nodes=several")


def test_dvc_repro_makes_the_same_bytes(finished: Workspace, scheduled: Workspace) -> None:
    assert_the_same_bytes(finished, scheduled)
    assert "Nothing to be done" in finished.succeed("snakemake", "-n")


@pytest.mark.graph
def test_jobs_without_dvc_make_the_same_bytes(
    pretrained: Workspace, finished: Workspace, tmp_path: Path
) -> None:
    workspace = copy(pretrained, tmp_path / "several")
    output = workspace.succeed(*SNAKEMAKE, "--config", "nodes=several")
    assert stages_run(output) == set(), "no DVC around a job"
    assert_the_same_bytes(workspace, finished)
    assert_nothing_to_do(workspace)


@pytest.mark.graph
def test_checked_out_data_is_as_good_as_made(again: Workspace) -> None:
    shutil.rmtree(again.folder / "data")
    assert planned(again) == rules(BEFORE_TRAINING | TRAINED)
    again.succeed("dvc", "checkout")
    assert_nothing_to_do(again)


@pytest.mark.graph
def test_a_setting_there_and_back(again: Workspace) -> None:
    before = again.hashes()
    again.succeed("python", "-m", "pipeline", "compose", MARGIN)
    assert planned(again) == rules(OF_NOISE_SPACE)
    assert stages_run(again.succeed(*SNAKEMAKE)) == OF_NOISE_SPACE
    assert_nothing_to_do(again)
    assert again.hashes() != before

    again.succeed("git", "checkout", "params.yaml")
    assert planned(again) == rules(OF_NOISE_SPACE)
    assert stages_run(again.succeed(*SNAKEMAKE)) == set(), "all found in DVC's run cache"
    assert again.hashes() == before
    assert_nothing_to_do(again)


@pytest.mark.graph
def test_a_variation_is_kept_as_an_experiment(again: Workspace) -> None:
    before = again.hashes()
    command = ("python", "-m", "pipeline", "vary", "wider",
               "methods.noise_space.margin=0.3", "--", "--cores", "2")  # fmt: skip
    assert stages_run(again.succeed(*command)) == OF_NOISE_SPACE
    varied = again.hashes()
    assert "wider" in again.succeed("dvc", "exp", "list", "--name-only").split()
    refused = again.run(*command)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: experiment 'wider' exists")

    again.succeed("git", "checkout", "--force", ".")
    again.succeed("dvc", "checkout", "--force")
    assert again.hashes() == before
    again.succeed("dvc", "exp", "apply", "wider")
    assert again.hashes() == varied
    assert_nothing_to_do(again)


@pytest.mark.graph
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x y"], "'x y' cannot name an experiment"),
        (["x", "train.stepz=1"], "train.stepz"),
        (["x", "train.steps=many"], "train.steps: found 'many'"),
    ],
)
def test_a_wrong_variation_stops_before_any_work(
    again: Workspace, words: list[str], message: str
) -> None:
    params = (again.folder / "params.yaml").read_bytes()
    done = again.run("python", "-m", "pipeline", "vary", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert (again.folder / "params.yaml").read_bytes() == params


@pytest.mark.graph
def test_pictures_and_reports_of_the_graph(scheduled: Workspace, tmp_path: Path) -> None:
    drawn = scheduled.run("snakemake", "--dag").stdout
    assert drawn.lstrip().startswith("digraph") and "train__denoise__noise_space__0" in drawn
    page = tmp_path / "page.html"
    scheduled.succeed("snakemake", "--report", str(page))
    assert "train__denoise__noise_space__0" in page.read_text()


@pytest.mark.graph
def test_a_large_graph_is_read_in_seconds(one_task: Path, tmp_path: Path) -> None:
    here = Path.cwd()
    os.chdir(one_task)
    try:
        times = graph_size.measure(["preset=paper"], tmp_path / "copy")
    finally:
        os.chdir(here)
    jobs = graph_size.count_jobs(tmp_path / "copy")
    graph_size.show(jobs, graph_size.count_trainings(tmp_path / "copy"), times)
    assert jobs["train"] == 18 and jobs.total() == 64
    assert len(times) == 2
    # of processor time: others may use this machine
    assert all(processor < 10 for _, processor in times.values())
