"""What goes wrong under Snakemake and DVC: the same bytes at the end, or one clear error first."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from tests.helpers.workspace import Workspace, command_of, copy, processes, stages_run

TRAINING = "train@denoise-noise_space-0"
RULE = "train__denoise__noise_space__0"
MODEL = Path("data/models/denoise/noise_space-0")
SNAKEMAKE = ("snakemake", "--cores", "2")
SEVERAL = ("--config", "nodes=several")
UNLOCK = ("snakemake", "--unlock")


def assert_as_in(finished: Workspace, workspace: Workspace) -> None:
    """The training, in the folder, in dvc.lock and for DVC, is what a plain run made."""
    for name in ("model.safetensors", "log.csv"):
        path = MODEL / name
        assert (workspace.folder / path).read_bytes() == (finished.folder / path).read_bytes()
        assert workspace.hashes()[str(path)] == finished.hashes()[str(path)]
    assert f"{TRAINING}:" not in workspace.succeed("dvc", "status")


# What happens while a training runs that has saved itself. It stands still meanwhile.


@dataclass(frozen=True)
class Scene:
    """Who is there: Snakemake's and the training's process."""

    workspace: Workspace
    snakemake: int
    training: int


def send(number: signal.Signals, scene: Scene) -> None:
    os.kill(scene.training, number)


def send_snakemake(number: signal.Signals, scene: Scene) -> None:
    os.kill(scene.snakemake, number)


def send_all(number: signal.Signals, scene: Scene) -> None:
    os.killpg(scene.snakemake, number)


def kill_dvc(scene: Scene) -> None:
    process = _parent(scene.training)
    if " repro" not in command_of(process):  # a shell that is no bash stays in between
        process = _parent(process)
    assert " repro" in command_of(process), command_of(process)
    os.kill(process, signal.SIGKILL)


def _parent(process: int) -> int:
    return int(re.findall(r"^PPid:\s(\d+)", _status(process), re.MULTILINE)[0])


def _status(process: int) -> str:
    return Path("/proc", str(process), "status").read_text()


def edit(name: str, old: str, new: str, scene: Scene) -> None:
    path = scene.workspace.folder / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


def start_another(command: tuple[str, ...], scene: Scene) -> str:
    other = scene.workspace.run(*command)
    assert other.returncode != 0
    return other.stdout + other.stderr


def plan_beside(scene: Scene) -> str:
    """With a setting that makes finished stages stale: the marks of the one at work stay."""
    folder = scene.workspace.folder / ".snakemake" / "dvc"
    marks = {path for part in ("done", "computed") for path in (folder / part).iterdir()}
    before = (scene.workspace.folder / "params.yaml").read_text()
    edit("params.yaml", "pretrain_steps: 20", "pretrain_steps: 10", scene)
    told = scene.workspace.succeed("snakemake", "-n", RULE)
    (scene.workspace.folder / "params.yaml").write_text(before)
    assert f"rule {RULE}:" in told and "rule pretrain__denoise__0:" not in told
    assert marks == {path for part in ("done", "computed") for path in (folder / part).iterdir()}
    return told


def unlock(scene: Scene) -> str:
    return scene.workspace.succeed(*UNLOCK)


@dataclass(frozen=True)
class Fault:
    """What happens, what is then told, whether Snakemake recovers, what puts it right by hand.

    ``told``: by whom ever, until all is right. ``recovers`` is None where it may or may not.
    ``shell``: DVC starts its stages with that. ``nodes``: "several" where no job runs DVC.
    """

    happens: Callable[[Scene], str | None]
    told: str
    recovers: bool | None = False
    by: tuple[tuple[str, ...], ...] = ()
    shell: str | None = None
    nodes: str = "one"


GOES_ON = r"going on from step \d+"
SAVED = r"stopped, saved at step (?s:.*)" + GOES_ON
BUSY = "is busy, it is being blocked by"
REFUSED = "changed while .* ran"
PLANS = r"Snakemake runs here as process \d+ on \S+: its plan is shown"
WAITS = r"Snakemake runs here as process \d+ on \S+: wait for it or stop it"
UNLOCKED = f"--unlock(?s:.*){GOES_ON}"

PUT_BACK = ("git", "checkout", "params.yaml", "pipeline", "dvc.yaml")
MARGIN = ("params.yaml", "margin: 0.1", "margin: 0.2")
CODE = ("pipeline/training/log.py", '"""', '"""Edited. ')
COMMAND = ("dvc.yaml", "python -m stages.train ", "python -B -m stages.train ")
OTHER_RULE = "train__denoise__vanilla__0"

FAULTS = {
    "SIGTERM to the training": Fault(partial(send, signal.SIGTERM), SAVED, True),
    "SIGKILL to the training": Fault(partial(send, signal.SIGKILL), GOES_ON, True),
    "SIGKILL to the DVC of its job": Fault(kill_dvc, GOES_ON, True, shell="/bin/bash"),
    # which does not give its place to the training
    "SIGKILL to the DVC above sh": Fault(kill_dvc, GOES_ON, True, shell="/bin/sh"),
    "SIGTERM to Snakemake": Fault(partial(send_snakemake, signal.SIGTERM), "Will exit after"),
    # Snakemake may start the training again before it sees its own signal
    "SIGINT to all": Fault(partial(send_all, signal.SIGINT), "saved at step", None),
    "SIGHUP to all": Fault(partial(send_all, signal.SIGHUP), UNLOCKED, by=(UNLOCK,)),
    "SIGKILL to Snakemake": Fault(
        partial(send_snakemake, signal.SIGKILL), UNLOCKED, by=(UNLOCK,)
    ),
    "SIGKILL to all": Fault(partial(send_all, signal.SIGKILL), UNLOCKED, by=(UNLOCK,)),
    # what is refused is made again with the new content, and then with the old
    "a setting is edited": Fault(partial(edit, *MARGIN), REFUSED, True, by=(PUT_BACK,)),
    "code is edited": Fault(partial(edit, *CODE), REFUSED, True, by=(PUT_BACK,)),
    # DVC notes the command that it started
    "dvc.yaml is edited": Fault(
        partial(edit, *COMMAND), "changed command", True, by=(("dvc", "status"), PUT_BACK)
    ),
    "snakemake -n beside it": Fault(plan_beside, PLANS, True),
    "a second Snakemake starts": Fault(
        partial(start_another, (*SNAKEMAKE, RULE)), "cannot be locked", True
    ),
    "a Snakemake for another stage starts": Fault(
        partial(start_another, (*SNAKEMAKE, OTHER_RULE)), WAITS, True
    ),
    "dvc repro starts too": Fault(
        partial(start_another, ("dvc", "repro", TRAINING)), BUSY, True
    ),
    "somebody unlocks the folder": Fault(unlock, "Unlocked working directory", True),
}  # fmt: skip
ON_SEVERAL_NODES = {
    f"{name}, on several nodes": replace(fault, nodes="several")
    for name, fault in {
        "SIGTERM to the training": FAULTS["SIGTERM to the training"],
        "SIGKILL to Snakemake": FAULTS["SIGKILL to Snakemake"],
        "a setting is edited": FAULTS["a setting is edited"],
        # which the commit reads
        "dvc.yaml is edited": Fault(
            partial(edit, *COMMAND), "dvc.yaml changed while its job ran", by=(PUT_BACK,)
        ),
        "snakemake -n beside it": FAULTS["snakemake -n beside it"],
    }.items()
}


ALWAYS = "SIGKILL to all"
OFTEN = {
    ALWAYS,
    "SIGTERM to the training",
    "a setting is edited",
    "a second Snakemake starts",
    "SIGTERM to the training, on several nodes",
}
"""One fault of each kind. Each starts Snakemake, DVC and a training in processes of their own."""


def marks(name: str) -> tuple[pytest.MarkDecorator, ...]:
    if name == ALWAYS:
        return ()
    return (pytest.mark.graph,) if name in OFTEN else (pytest.mark.slow,)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=marks(name)) for name in FAULTS | ON_SEVERAL_NODES],
)
def test_while_a_training_runs(
    name: str,
    pretrained: Workspace,
    finished: Workspace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fault = (FAULTS | ON_SEVERAL_NODES)[name]
    if fault.shell:
        monkeypatch.setenv("SHELL", fault.shell)
    workspace = copy(pretrained, tmp_path / "work")
    command = (*SNAKEMAKE, RULE)
    if fault.nodes == "several":
        command = (*SNAKEMAKE, f"commit__{RULE}", *SEVERAL)
    told = []

    def happen(snakemake: int) -> bool:
        training = workspace.saved_training()
        if training is None:
            return False
        os.kill(training, signal.SIGSTOP)
        told.append(fault.happens(Scene(workspace, snakemake, training)) or "")
        time.sleep(0.3)  # until a killed one has taken along what it started
        if training in processes():
            os.kill(training, signal.SIGCONT)
        return True

    done = workspace.meddle(happen, *command)
    told.append(done.stdout)
    recovered = done.returncode == 0
    assert fault.recovers in (recovered, None)
    if fault.by or not recovered:
        if UNLOCK in fault.by:
            locked = workspace.run(*command)
            assert locked.returncode != 0
            told.append(locked.stdout + locked.stderr)
        told += [workspace.succeed(*mending) for mending in fault.by]
        told.append(workspace.succeed(*command))
    assert re.search(fault.told, "\n".join(told))
    assert_as_in(finished, workspace)


@pytest.mark.slow
def test_killed_while_a_result_is_committed(
    pretrained: Workspace, finished: Workspace, tmp_path: Path
) -> None:
    workspace = copy(pretrained, tmp_path / "work")
    command = (*SNAKEMAKE, f"commit__{RULE}", *SEVERAL)

    def commits(output: str) -> bool:
        return any(
            place == str(workspace.folder) and "commit --quiet" in command_of(process)
            for process, place in processes().items()
        )

    workspace.kill_when(commits, *command)
    workspace.succeed(*UNLOCK)
    output = workspace.succeed(*command)
    assert f"rule {RULE}:" not in output, "only the commit was missing"
    assert_as_in(finished, workspace)


@pytest.mark.graph
def test_where_checkpoints_cannot_be_written(
    pretrained: Workspace, finished: Workspace, small_disk: Path, tmp_path: Path
) -> None:
    workspace = copy(pretrained, tmp_path / "work")
    command = (*SNAKEMAKE, RULE)
    for folder, told in ((Path("/dev/null/x"), "Not a directory"), (small_disk, "No space left")):
        failed = workspace.run("env", f"PIPELINE_CHECKPOINTS={folder}", *command)
        assert failed.returncode != 0
        assert re.search(f"error: .*{told}", failed.stdout + failed.stderr)
        assert "Traceback" not in failed.stdout + failed.stderr
    workspace.succeed(*command)
    assert_as_in(finished, workspace)


# What is damaged between two runs.


def cut(name: str, folder: Path) -> None:
    text = (folder / name).read_text()
    (folder / name).write_text(text[: text.index("cmd:", len(text) // 2)])


def remove(name: str, folder: Path) -> None:
    path = folder / name
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def append(name: str, folder: Path) -> None:
    with (folder / name).open("ab") as file:
        file.write(b"more")


def leave_locks(folder: Path) -> None:
    """As a DVC that was killed: its own lock, and what a stage of it was writing."""
    dead = subprocess.Popen(["true"])
    dead.wait()
    info = {"pid": dead.pid, "cmd": "dvc repro"}
    held = {"write": {str(folder / MODEL / "model.safetensors"): info}, "read": {}}
    (folder / ".dvc" / "tmp" / "rwlock").write_text(json.dumps(held))
    (folder / ".dvc" / "tmp" / "lock").write_text(f" {dead.pid}\n")
    remove(str(MODEL), folder)


def cached(folder: Path) -> Path:
    """Return the model's object in the cache."""
    name = Workspace(folder).hashes()[str(MODEL / "model.safetensors")]
    return folder / ".dvc" / "cache" / "files" / "md5" / name[:2] / name[2:]


def lose_object(folder: Path) -> None:
    cached(folder).unlink()
    remove(str(MODEL), folder)


def damage_object(folder: Path) -> None:
    """Change a byte as a failing disk does: mode and name stay as they are."""
    path = cached(folder)
    mode, content = path.stat().st_mode, bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink()  # copies of the workspace share it
    path.write_bytes(content)
    path.chmod(mode)


LOOKED_AFTER = "download@skimage"  # DVC does not keep it in its run cache; nothing is fetched anew
CHECK = ("sh", "-c", "! python -m pipeline check_cache && git clean -fdqX data && ! dvc checkout")
DAMAGES: dict[str, tuple[Callable[[Path], None], tuple[tuple[str, ...], ...], set[str]]] = {
    # what is done, how it is mended by hand, which stages then run again
    "half a dvc.lock": (partial(cut, "dvc.lock"), (), {LOOKED_AFTER}),
    "no dvc.lock": (partial(remove, "dvc.lock"), (), {LOOKED_AFTER}),
    "locks of a killed DVC": (leave_locks, (), set()),
    "no data": (partial(remove, "data"), (), {LOOKED_AFTER}),
    "a changed output": (partial(append, str(MODEL / "model.safetensors")), (), set()),
    "no marks of Snakemake": (partial(remove, ".snakemake"), (), set()),
    "a lost object and output": (lose_object, (), {TRAINING}),
    "a damaged object": (damage_object, (CHECK,), {TRAINING}),
}


@pytest.fixture(scope="module")
def damaged(finished: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A finished workspace with Snakemake's marks, for one damage after the other."""
    workspace = copy(finished, tmp_path_factory.mktemp("damaged") / "work")
    workspace.succeed(
        *SNAKEMAKE,
    )
    return workspace


@pytest.mark.graph
@pytest.mark.parametrize("name", DAMAGES)
def test_damage_between_runs(name: str, damaged: Workspace, finished: Workspace) -> None:
    damage, mendings, run_again = DAMAGES[name]
    damage(damaged.folder)
    for mending in mendings:
        damaged.succeed(*mending)
    output = damaged.succeed(
        *SNAKEMAKE,
    )
    assert stages_run(output) == run_again
    assert damaged.hashes() == finished.hashes()
    assert_as_in(finished, damaged)
    assert "up to date" in damaged.succeed("dvc", "status")
    assert "Nothing to be done" in damaged.succeed("snakemake", "-n")


def test_there_are_at_least_fifteen_faults_of_scheduling() -> None:
    """Without the damages, and without counting one twice that happens on several nodes too."""
    assert len(FAULTS) >= 15 and FAULTS.keys() | ON_SEVERAL_NODES.keys() >= OFTEN
    assert all(fault.told for fault in (FAULTS | ON_SEVERAL_NODES).values())
    things = [(fault.happens, fault.shell) for fault in FAULTS.values()]
    assert len({(str(happens), shell) for happens, shell in things}) == len(things)
