"""What jobs on other nodes do without DVC, and what Snakemake is told: on a graph of two files."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from dvc.repo import Repo

from pipeline.config.compose import compose
from pipeline.runtime.errors import UserError
from pipeline.workflow.graph import Stage, is_computed, planned, read_graph
from pipeline.workflow.jobs import commit, compute
from pipeline.workflow.mend_lock import release_dead
from pipeline.workflow.project import GRAPH_VARIABLE
from pipeline.workflow.snakemake import renew_marks

ROOT = Path(__file__).parents[2]


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """Copies a file, in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text("a: {b: 1e-05}\nother: 1\n")
    Path("in").mkdir()
    Path("in", "x").write_text("data")
    return Stage(
        name="copy@x-0", cmd="cp in/x out/y", needs=[], deps=["in"], params=["a"],
        outs=["out/y"], resources={},
    )  # fmt: skip


@pytest.fixture
def computed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr("pipeline.workflow.jobs.read_stages", lambda: [stage])
    renew_marks([stage], [stage.name])
    assert compute(stage) == 0
    assert is_computed(stage)
    return stage


def test_the_graph_is_dvcs() -> None:
    repo = Repo(str(ROOT))
    stages = {stage.name: stage for stage in read_graph(repo)}
    assert len({stage.rule for stage in stages.values()}) == len(stages), "rules of the same name"
    assert set(stages) == {stage.addressing for stage in repo.index.stages}
    train = stages["train@denoise-noise_space-0"]
    assert train.rule == "train__denoise__noise_space__0"
    assert train.needs == ["pretrain@denoise-0", "synthesize@denoise"]
    assert train.retries == 3 and stages["report"].retries is None
    assert "methods.noise_space" in train.params
    assert stages["download@skimage"].persisted == ["data/raw/skimage"]
    assert "params.yaml" not in train.deps and "pipeline/training" in train.deps
    assert "gpu" not in train.resources, "none of the demo's"
    assert train.resources["mem_mb"] == 4000 and train.threads == 2


def test_an_evaluation_asks_for_one_of_the_gpus_of_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    subprocess.run(["dvc", "init", "--quiet", "--no-scm"], check=True)
    paper = ["preset=paper", "train.devices=4"]
    for steps, gpus in ((1000, 4), (0, None)):
        compose([*paper, f"train.pretrain_steps={steps}"], tmp_path / "params.yaml")
        stages = {stage.name: stage for stage in read_graph(Repo())}
        pretrain = stages["pretrain@denoise-0"]
        assert pretrain.resources.get("gpu") == gpus, "without updates it writes first weights"
        assert (pretrain.threads, pretrain.resources["runtime"]) == (
            (1, 60) if steps == 0 else (64, 10080)
        )
    asked = {name: stage.resources.get("gpu") for name, stage in stages.items()}
    of = "@denoise-noise_space-0"
    assert (asked[f"train{of}"], asked[f"evaluate{of}"]) == (4, 1)
    assert {asked[name] for name in ("report", "evaluate_degraded@denoise")} == {None}


def test_a_job_reads_the_graph_that_snakemake_started_with(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("graph.json").write_text(json.dumps([asdict(stage)]))
    monkeypatch.setenv(GRAPH_VARIABLE, "graph.json")
    assert planned() == [stage]
    monkeypatch.delenv(GRAPH_VARIABLE)
    with pytest.raises(UserError, match="only inside a job"):
        planned()


def test_what_depends_on_a_change_is_not_done(stage: Stage) -> None:
    others = [replace(stage, name=name, needs=needs) for name, needs in
              [("d", ["c"]), ("c", ["b"]), ("b", []), ("e", [])]]  # fmt: skip
    renew_marks(others, [])
    assert all(Path(other.done).exists() and Path(other.computed).exists() for other in others)
    renew_marks(others, ["b"])
    assert [other.name for other in others if Path(other.done).exists()] == ["e"]
    assert [other.name for other in others if Path(other.computed).exists()] == ["e"]


def test_outputs_are_removed_first_and_a_failure_leaves_no_note(computed: Stage) -> None:
    failing = replace(computed, name="failing", cmd="test ! -e out/y && exit 75")
    assert compute(failing) == 75
    assert not Path(failing.computed).exists()


def test_a_note_outlives_snakemake_as_long_as_it_is_true(computed: Stage) -> None:
    renew_marks([computed], [computed.name])
    assert Path(computed.computed).exists(), "only the commit is missing"
    Path("out", "y").write_text("other")
    renew_marks([computed], [computed.name])
    assert not Path(computed.computed).exists()


CHANGES: dict[str, Callable[[], object]] = {
    "data": lambda: Path("in", "x").write_text("more"),
    "a new file": lambda: Path("in", "z").write_text("more"),
    "a setting": lambda: Path("params.yaml").write_text("a: {b: 1e-04}\nother: 1\n"),
    "an output": lambda: Path("out", "y").write_text("none"),
    "no output": lambda: Path("out", "y").unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_while_a_job_ran_is_not_committed(computed: Stage, change: str) -> None:
    CHANGES[change]()
    assert not is_computed(computed)
    with pytest.raises(UserError, match="changed while its job ran"):
        commit(computed, patience_s=0)


def test_a_commit_waits_for_a_slow_file_system(
    computed: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[list[str]] = []

    def dvc(command: list[str]) -> subprocess.CompletedProcess[str]:
        called.append(command)
        return subprocess.CompletedProcess(command, 0)

    kept = Path("out", "y").rename("late")
    later = threading.Timer(0.5, lambda: kept.rename(Path("out", "y")))
    later.start()
    monkeypatch.setattr(subprocess, "run", dvc)
    assert commit(computed, patience_s=20) == 0
    later.join()
    assert called == [["dvc", "--wait-for-lock", "commit", "--quiet", "--force", "copy@x-0"]]


@pytest.mark.parametrize("changed", [{"cmd": "cp in/x out/z"}, {"deps": ["in", "more"]}])
def test_a_stage_that_dvc_yaml_changed_meanwhile_is_not_committed(
    computed: Stage, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    """DVC would note the new command as the origin of what the old one made."""
    monkeypatch.setattr(
        "pipeline.workflow.jobs.read_stages", lambda: [replace(computed, **changed)]
    )
    monkeypatch.setattr(subprocess, "run", lambda command: pytest.fail("committed"))
    with pytest.raises(UserError, match=r"copy@x-0: dvc.yaml changed while its job ran"):
        commit(computed, patience_s=0)


def test_what_a_stage_keeps_is_not_deleted_before_it_runs(stage: Stage) -> None:
    """Archives that are there and right are not fetched again, on a cluster neither."""
    for out in ("out/y", "kept"):
        Path(out).mkdir(parents=True)
        Path(out, "before").touch()
    asks = replace(stage, cmd="ls out kept", outs=["out/y", "kept"], persisted=["kept"])
    assert compute(asks) == 0
    assert Path("kept", "before").exists()
    assert not Path("out", "y").exists()


def test_what_a_stage_does_not_read_may_change(computed: Stage) -> None:
    Path("params.yaml").write_text("# comment\na: {b: 0.00001}\nother: 2\n")
    Path("in", "__pycache__").mkdir()
    Path("in", "__pycache__", "x.pyc").touch()
    assert is_computed(computed)


@pytest.mark.parametrize(("killed", "times"), [(False, 1), (True, 2)])
def test_of_two_jobs_of_a_stage_the_second_waits(stage: Stage, killed: bool, times: int) -> None:
    """The first is one of a Snakemake that was killed; what it finishes is not made again."""
    waits = "echo ran >> runs; until test -e go; do sleep 0.1; done; cp in/x out/y"
    stage = replace(stage, cmd=waits)
    Path("graph.json").write_text(json.dumps([asdict(stage)]))

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "pipeline.workflow.jobs", "compute", stage.name],
            env=os.environ | {"PYTHONPATH": str(ROOT), GRAPH_VARIABLE: "graph.json"},
            stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    first = start()
    while not Path("runs").exists():
        assert first.poll() is None
        time.sleep(0.01)
    second = start()
    assert second.stdout is not None
    told = second.stdout.readline()
    assert told.startswith(f"copy@x-0: process {first.pid} on ") and "waiting for it" in told
    if killed:
        os.killpg(first.pid, signal.SIGKILL)
    Path("go").touch()
    assert first.wait() == (-signal.SIGKILL if killed else 0)
    assert second.wait() == 0
    assert Path("runs").read_text() == "ran\n" * times
    assert is_computed(stage)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_job_hands_signals_on_and_waits(stage: Stage, number: signal.Signals) -> None:
    script = (
        "import signal, sys, time\n"
        "def save(*_):\n    time.sleep(0.3); print('saved', flush=True); sys.exit(75)\n"
        f"signal.signal({number}, save)\nprint('ready', flush=True)\ntime.sleep(60)\n"
    )
    Path("train.py").write_text(script)
    stage = replace(stage, cmd=f"exec {sys.executable} train.py")
    Path("graph.json").write_text(json.dumps([asdict(stage)]))
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.workflow.jobs", "compute", stage.name],
        env=os.environ | {"PYTHONPATH": str(ROOT), GRAPH_VARIABLE: "graph.json"},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    assert process.stdout.readline() == "saved\n"
    assert process.wait() == 75


@pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")
def test_a_killed_job_takes_its_stage_along(stage: Stage) -> None:
    code = (
        "from pipeline.workflow.stage import end_with_parent as e; e();"
        " print(1, flush=True); input()"
    )
    stage = replace(stage, cmd=f'exec {sys.executable} -c "{code}"')
    Path("graph.json").write_text(json.dumps([asdict(stage)]))
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline.workflow.jobs", "compute", stage.name],
        env=os.environ | {"PYTHONPATH": str(ROOT), GRAPH_VARIABLE: "graph.json"},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    started = time.monotonic()
    process.kill()
    assert process.stdout.read() == "", "closed at its end"
    assert time.monotonic() - started < 10
    process.wait()


def test_a_dead_process_that_nobody_collected_holds_no_lock(tmp_path: Path) -> None:
    """DVC takes it for alive: its number is still taken."""
    living = {"pid": os.getpid(), "cmd": "dvc repro"}
    ended = subprocess.Popen(["true"])  # and never waited for
    dead = {"pid": ended.pid, "cmd": "dvc repro"}
    while psutil.Process(dead["pid"]).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.01)
    claims = tmp_path / "rwlock"
    claims.write_text(
        json.dumps({"write": {"a": dead, "b": living}, "read": {"c": [dead, living]}})
    )
    release_dead(claims)
    assert json.loads(claims.read_text()) == {"write": {"b": living}, "read": {"c": [living]}}
    release_dead(tmp_path / "none")
