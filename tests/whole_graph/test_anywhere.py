"""The graph in odd places and states: refused in one line before any work, or the same bytes."""

import os
import re
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import time
from pathlib import Path

import pytest

from pipeline.workflow.account import NAME
from tests.helpers.nobody import as_nobody, give, require_nobody
from tests.helpers.workspace import ROOT, Workspace, clone, copy, environment, stages_run

pytestmark = pytest.mark.graph

DEGRADED = "evaluate_degraded@denoise"
WAY_BACK = re.search(
    r"^    (git restore .*)$", (ROOT / "docs" / "experiments.md").read_text(), re.MULTILINE
)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)


@pytest.fixture(scope="module")
def workspace(finished: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A finished workspace that no test leaves changed."""
    return copy(finished, tmp_path_factory.mktemp("anywhere") / "work")


def state(workspace: Workspace) -> tuple[str, str, str]:
    """Return what git and DVC find changed, and the settings; not that DVC drops a dead claim."""
    params = (workspace.folder / "params.yaml").read_text()
    found = re.sub("^WARNING: Process .*\n", "", workspace.succeed("dvc", "status"), flags=re.M)
    return workspace.succeed("git", "status", "--short"), found, params


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["seeds=[]"], "seeds: found nothing, expected at least one, such as seeds=[0]"),
        (["tasks=[denoise,own_denoise]"], "tasks: found denoise and own_denoise, which are both"),
        (["train.stepz=1"], "found the key 'train.stepz', which there is not (did you mean"),
        (["train.steps=many"], "train.steps: found 'many' (str), expected a whole number"),
    ],
)
def test_an_experiment_that_cannot_be_composed_changes_nothing(
    workspace: Workspace, overrides: list[str], told: str
) -> None:
    before = state(workspace)
    options = [word for override in overrides for word in ("-S", override)]
    refused = workspace.run("dvc", "exp", "run", *options)
    assert refused.returncode != 0 and told in refused.stderr
    assert "Traceback" not in refused.stderr and "unexpected" not in refused.stderr
    assert state(workspace) == before


def test_a_preset_and_edits_by_hand_are_not_lost_in_silence(workspace: Workspace) -> None:
    params = workspace.folder / "params.yaml"
    held = params.read_text()
    params.write_text(held.replace("preset: tiny", "preset: one_gpu"))
    refused = workspace.run("dvc", "exp", "run")
    assert refused.returncode != 0
    assert "add preset=one_gpu to keep it, or preset=tiny" in refused.stderr
    assert "preset: one_gpu" in params.read_text()
    params.write_text(held.replace("  examples: 1\n", "  examples: 2\n"))
    composed = workspace.succeed("python", "-m", "pipeline", "compose", "--diff")
    assert composed == "report.examples: 2 -> 1\n" and params.read_text() != held
    ran = workspace.succeed("dvc", "exp", "run", "--name", "by-hand")
    assert "params.yaml, composed anew: report.examples: 2 -> 1" in ran
    assert params.read_text() == held


def test_the_projects_own_code_runs_whatever_the_environment_says(
    workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "stages").mkdir()
    (tmp_path / "stages" / "__init__.py").write_text("raise SystemExit('another package')")
    for said in (f"PYTHONPATH={tmp_path}", "PYTHONSAFEPATH=1"):
        output = workspace.succeed("env", said, "dvc", "repro", "--force", "-s", DEGRADED)
        assert stages_run(output) == {DEGRADED}
    assert "up to date" in workspace.succeed("dvc", "status")


def test_snakemakes_options_do_what_its_manual_says(workspace: Workspace, tmp_path: Path) -> None:
    rule = "evaluate_degraded__denoise"
    planned = workspace.succeed("snakemake", "-n")
    assert "Nothing to be done" in planned and "metadata" not in planned
    for options in (("--forcerun", rule), ("-f", rule)):
        assert stages_run(workspace.succeed("snakemake", *options)) == {DEGRADED}
    assert workspace.run("snakemake", "--forcerun", "no_rule").returncode != 0
    refused = workspace.run("snakemake", "--config", "nodes=sevral")
    assert (
        refused.returncode != 0 and "found nodes=sevral, expected nodes=several" in refused.stderr
    )
    reported = workspace.succeed("snakemake", "--report", str(tmp_path / "jobs.html"))
    assert "metadata" not in reported and (tmp_path / "jobs.html").is_file()
    assert rule in workspace.succeed("snakemake", "--dag")


def test_a_link_in_place_of_the_data_is_refused_before_any_work(
    finished: Workspace, tmp_path: Path
) -> None:
    work = copy(finished, tmp_path / "work")
    shutil.move(work.folder / "data", tmp_path / "large")
    (work.folder / "data").symlink_to(tmp_path / "large")
    train = ("dvc", "repro", "--force", "-s", "train@denoise-vanilla-0")
    for command in (train, ("snakemake", "-n"), ("python", "-m", "pipeline", "vary", "x")):
        refused = work.run(*command)
        assert refused.returncode != 0
        assert "error: data: is a symbolic link, below which DVC takes no results" in (
            refused.stdout + refused.stderr
        )
    assert not any((work.folder / ".checkpoints").glob("*/state.safetensors"))


@pytest.mark.slow
def test_the_way_back_from_ten_moments(finished: Workspace, tmp_path: Path) -> None:
    """Minutes: an experiment is begun ten times, and ended by one signal after the other."""
    assert WAY_BACK is not None
    work = copy(finished, tmp_path / "work")
    before = state(work)
    for number in range(10):
        process = subprocess.Popen(
            ["dvc", "exp", "run", "-S", f"methods.noise_space.margin=0.3{number}"],
            cwd=work.folder, env=environment(), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        time.sleep(1.5 + 2 * number)
        os.killpg(process.pid, SIGNALS[number % len(SIGNALS)])
        process.wait()
        if work.run("git", "status").returncode:
            work.succeed("sh", "-c", 'rm "$(git rev-parse --git-path index)" && git reset')
        if work.run("git", "symbolic-ref", "--quiet", "HEAD").returncode:
            work.succeed("git", "switch", "--quiet", "main")
        work.succeed("sh", "-c", WAY_BACK[1])
        assert state(work) == before, number


@pytest.mark.slow
@pytest.mark.parametrize("named", [False, True])
def test_an_ordinary_user_without_a_home_makes_the_same_bytes(
    one_task: Path, finished: Workspace, named: bool
) -> None:
    """Minutes: the whole graph in an odd place, with PATH alone and without a terminal."""
    with tempfile.TemporaryDirectory() as place:
        spare = Path(place, "spare")
        spare.mkdir()
        Path(place).chmod(0o755)
        require_nobody(spare)
        if not named and not Path(sysconfig.get_path("purelib"), NAME).is_file():
            pytest.skip("this environment knows nothing of such accounts: make setup")
        work = clone(one_task, Path(place, "d'é a"))
        for key, value in (("user.name", "nobody"), ("user.email", "nobody@localhost")):
            work.succeed("git", "config", key, value)
        give(work.folder)

        def succeed(*command: str) -> str:
            done = as_nobody(work.folder, spare, *command, named=named)
            assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            return done.stdout + done.stderr

        succeed("dvc", "repro")
        assert work.hashes() == finished.hashes()
        assert "Nothing to be done" in succeed("snakemake", "-n")
        checked = as_nobody(work.folder, spare, "python", "-m", "pipeline", "doctor", named=named)
        assert "Slurm" in checked.stdout and "Traceback" not in checked.stderr
        succeed("git", "add", "--all")
        succeed("git", "commit", "--quiet", "--message", "results")
        changed = "methods.noise_space.margin=0.3"
        varied = succeed("python", "-m", "pipeline", "vary", "wider", changed, "--", "-c", "1")
        assert "train@denoise-noise_space-0" in stages_run(varied)
        assert "wider" in succeed("dvc", "exp", "list", "--name-only")
        assert {path.name for path in Path(place).iterdir()} <= {"spare", "d'é a"}
