"""Snakemake and DVC agree to the byte, whichever of them ran what, and whatever is killed."""

import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import graph_size
from tests.workspace import Workspace, clone, make_origin, stages_run

pytestmark = pytest.mark.graph

SETTINGS = ("preset=tiny", "tasks=[denoise]", "train.pretrain_steps=20", "train.steps=30")
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
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_origin(tmp_path_factory.mktemp("origin"))
    workspace = Workspace(folder)
    workspace.succeed("python", "-m", "pipeline.compose", *SETTINGS)
    graph = folder / "dvc.yaml"
    graph.write_text(graph.read_text().replace("retries: 3", "retries: 1"))
    workspace.commit("a longer training of one task, retried once")
    return folder


@pytest.fixture(scope="module")
def scheduled(origin: Path) -> Workspace:
    """A clone after a run of Snakemake, committed."""
    workspace = clone(origin, origin.parent / "scheduled")
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


def test_dvc_repro_makes_the_same_bytes(origin: Path, scheduled: Workspace) -> None:
    plain = clone(origin, origin.parent / "plain")
    plain.succeed("dvc", "repro")
    assert_the_same_bytes(plain, scheduled)
    assert_nothing_to_do(plain)


def test_checked_out_data_is_as_good_as_made(again: Workspace) -> None:
    shutil.rmtree(again.folder / "data")
    assert planned(again) == rules(BEFORE_TRAINING | TRAINED)
    again.succeed("dvc", "checkout")
    assert_nothing_to_do(again)


def test_a_fresh_clone_has_nothing_to_do_after_a_pull(scheduled: Workspace, tmp_path: Path) -> None:
    remote = ("dvc", "remote", "add", "--local", "--default", "folder", str(tmp_path / "remote"))
    scheduled.succeed(*remote)
    scheduled.succeed("dvc", "push")
    fresh = clone(scheduled.folder, tmp_path / "fresh")
    fresh.succeed(*remote)
    fresh.succeed("dvc", "pull")
    assert_nothing_to_do(fresh)


def test_a_setting_there_and_back(again: Workspace) -> None:
    before = again.hashes()
    again.succeed("python", "-m", "pipeline.compose", *SETTINGS, MARGIN)
    assert planned(again) == rules(OF_NOISE_SPACE)
    assert stages_run(again.succeed(*SNAKEMAKE)) == OF_NOISE_SPACE
    assert_nothing_to_do(again)
    assert again.hashes() != before

    again.succeed("git", "checkout", "params.yaml")
    assert planned(again) == rules(OF_NOISE_SPACE)
    assert stages_run(again.succeed(*SNAKEMAKE)) == set(), "all found in DVC's run cache"
    assert again.hashes() == before
    assert_nothing_to_do(again)


def test_a_variation_is_kept_as_an_experiment(again: Workspace) -> None:
    before = again.hashes()
    command = ("python", "-m", "pipeline.vary", "wider", *SETTINGS,
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
    done = again.run("python", "-m", "pipeline.vary", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert (again.folder / "params.yaml").read_bytes() == params


def signal_trainings(workspace: Workspace, number: signal.Signals) -> Callable[[str], bool]:
    """Send a signal, once, to a training that has saved itself; never be ready."""
    sent: set[int] = set()

    def ready(output: str) -> bool:
        for state in (workspace.folder / ".checkpoints").glob("*/state.safetensors"):
            process = (state.parent / "lock").read_text()
            if process and not sent:
                sent.add(int(process))
                os.kill(int(process), number)
        return False

    return ready


def is_training(workspace: Workspace) -> bool:
    return any((workspace.folder / ".checkpoints").glob("*/state.safetensors"))


@pytest.mark.parametrize("nodes", ["one", "several"])
def test_failed_stopped_and_killed_it_ends_with_the_same_bytes(
    origin: Path, scheduled: Workspace, nodes: str
) -> None:
    workspace = clone(origin, origin.parent / f"faults-{nodes}")
    command = (*SNAKEMAKE, "--config", f"nodes={nodes}")

    # a stage fails: what is finished stays, and only the rest is run again
    nowhere = ("env", "PIPELINE_CHECKPOINTS=/dev/null/nowhere")
    failed = workspace.run(*nowhere, *command)
    assert failed.returncode != 0
    status = workspace.succeed("dvc", "status")
    assert not any(f"{stage}:" in status for stage in BEFORE_TRAINING)
    assert planned(workspace) == rules(TRAINED)

    # a training is told to stop: Snakemake starts it again, and it goes on
    stop = signal_trainings(workspace, signal.SIGTERM)
    seen = 0

    def stop_then_kill(output: str) -> bool:
        nonlocal seen
        seen += stop(output) or "going on from step" in output
        # Snakemake itself is killed a little later, in the trainings or between them
        return seen > 100

    output = workspace.kill_when(stop_then_kill, *command, with_children=False)
    assert "stopped, saved at step" in output
    assert "going on from step" in output
    assert "is training this already" not in output

    # Snakemake was killed and its jobs with it: one command unlocks, and the same goes on
    time.sleep(1)
    assert workspace.run(*command).returncode != 0, "locked"
    workspace.succeed("snakemake", "--unlock")
    output = workspace.succeed(*command)
    assert not stages_run(output) & BEFORE_TRAINING
    if nodes == "several":
        assert stages_run(failed.stdout + output) == set(), "no DVC around a job"
    assert_the_same_bytes(workspace, scheduled)
    assert "up to date" in workspace.succeed("dvc", "status")
    assert_nothing_to_do(workspace)


def test_pictures_and_reports_of_the_graph(scheduled: Workspace, tmp_path: Path) -> None:
    drawn = scheduled.run("snakemake", "--dag").stdout
    assert drawn.lstrip().startswith("digraph") and "train__denoise__noise_space__0" in drawn
    page = tmp_path / "page.html"
    scheduled.succeed("snakemake", "--report", str(page))
    assert "train__denoise__noise_space__0" in page.read_text()


def test_a_large_graph_is_read_in_seconds(origin: Path, tmp_path: Path) -> None:
    here = Path.cwd()
    os.chdir(origin)
    try:
        times = graph_size.measure(["preset=paper"], tmp_path / "copy")
    finally:
        os.chdir(here)
    jobs = graph_size.count_jobs(tmp_path / "copy")
    graph_size.show(jobs, times)
    assert jobs["train"] == 18 and jobs.total() == 64
    assert len(times) == 2
    # of processor time: others may use this machine
    assert all(processor < 10 for _, processor in times.values())
