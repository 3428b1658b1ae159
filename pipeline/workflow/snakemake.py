"""What the Snakefile and its jobs need: DVC's graph, its judgement of staleness, jobs without DVC.

On one node a job is ``dvc repro --single-item``. On several nodes DVC must not run inside jobs: it
takes a lock holder of another node for dead. There a job runs the stage's bare command and leaves
a note of what it read and wrote; a second job beside Snakemake commits the result to DVC if
nothing has changed since.

Usage: python -m pipeline.workflow.snakemake {repro,compute,commit} STAGE     (what jobs call)
"""

import hashlib
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config.params import PARAMS_FILE
from pipeline.config.read import read_params
from pipeline.runtime.errors import UserError, user_errors_end
from pipeline.runtime.files import write_text
from pipeline.runtime.locks import lock, this_process
from pipeline.workflow.gpus import gpus_of, take_gpus, writes_first_weights_only
from pipeline.workflow.mend_lock import mend
from pipeline.workflow.one_snakemake import RUNNING, take_turn, tell_plan
from pipeline.workflow.project import (
    GRAPH_VARIABLE,
    repository,
    require_plain_folders,
    require_project,
)
from pipeline.workflow.stage import end_with_parent

FOLDER = Path(".snakemake/dvc")
"""Marks that Snakemake looks at in place of the data, which DVC replaces as it likes."""
FORCED_VARIABLE = "PIPELINE_FORCED"
"""Environment variable: the rules that run although they are up to date."""
PATIENCE_S = 60
"""How long network file systems keep what they know of a file, by default."""


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml with everything that a scheduler has to know."""

    name: str
    cmd: str
    needs: list[str]
    deps: list[str]
    params: list[str]
    outs: list[str]
    resources: dict[str, int | str]
    persisted: list[str] = field(default_factory=list)
    threads: int = 1
    retries: int | None = None

    @property
    def definition(self) -> tuple[Any, ...]:
        """What DVC notes of it as the origin of a result."""
        return self.name, self.cmd, self.deps, self.params, self.outs

    @property
    def rule(self) -> str:
        """Name of its rule: ``train@denoise-vanilla-0`` is ``train__denoise__vanilla__0``."""
        return re.sub(r"\W", "_", re.sub("[@-]", "__", self.name))

    @property
    def done(self) -> str:
        """File that stands for the outputs being in DVC."""
        return str(FOLDER / "done" / self.name)

    @property
    def needs_done(self) -> list[str]:
        """The same of the stages that it reads from."""
        return [str(FOLDER / "done" / name) for name in self.needs]

    @property
    def computed(self) -> str:
        """Note of a job that ran without DVC: what it read and wrote."""
        return str(FOLDER / "computed" / self.name)


def plan() -> list[Stage]:
    """Return the graph; make the marks in ``.snakemake/dvc`` say what is up to date for DVC.

    Beside a Snakemake at work: return its graph, and leave the marks to it.

    Raises:
        UserError: this is no clone, cannot be written to, or DVC cannot judge it.
    """
    require_project()
    require_plain_folders()
    others = take_turn(RUNNING)
    if others is not None:
        os.environ[GRAPH_VARIABLE] = str(others)
        return planned()
    mend()
    with repository(_wait_for_lock=True) as repo:
        stages = read_graph(repo)
        renew_marks(stages, repo.status())
    text = json.dumps([asdict(stage) for stage in stages])
    path = FOLDER / "graphs" / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
    write_text(path, text)
    os.environ[GRAPH_VARIABLE] = str(path)
    tell_plan(path)
    return stages


def force(rules: Iterable[str], every: bool) -> None:
    """Let jobs run rules that are up to date: Snakemake was started with --forcerun or the like.

    Raises:
        UserError: there is no such rule.
    """
    rules, known = set(rules), {stage.rule for stage in planned()}
    if unknown := rules - known - {"all"}:
        raise UserError(f"--forcerun: found {', '.join(sorted(unknown))}, expected names of rules;"
                        " 'snakemake --list-rules' has all")  # fmt: skip
    os.environ[FORCED_VARIABLE] = " ".join(known if every else rules)


def is_forced(stage: Stage) -> bool:
    """Return whether a stage runs although it is up to date."""
    return stage.rule in os.environ.get(FORCED_VARIABLE, "").split()


def not_of_its_notes(record: logging.LogRecord) -> bool:
    """Return False for what Snakemake says of notes that it lacks: DVC made that, and judges it."""
    text = record.getMessage()
    return "missing provenance/metadata" not in text and "Missing metadata for file" not in text


def planned() -> list[Stage]:
    """Return the graph that Snakemake started with, in its jobs: neither DVC nor params.yaml."""
    path = os.environ.get(GRAPH_VARIABLE)
    if path is None:
        raise UserError(f"{GRAPH_VARIABLE} is not set: this runs only inside a job of Snakemake")
    return [Stage(**values) for values in json.loads(Path(path).read_text(encoding="utf-8"))]


def read_stages() -> list[Stage]:
    """Return the stages as dvc.yaml and params.yaml have them now."""
    from dvc.repo import Repo

    return read_graph(Repo())


def read_graph(repo: Any) -> list[Stage]:
    """Return the stages of a ``dvc.repo.Repo``."""
    found = []
    pretrain_steps = read_params(Path(repo.root_dir) / PARAMS_FILE).train.pretrain_steps
    for stage in repo.index.stages:
        resources = dict((stage.meta or {}).get("resources", {}))
        if writes_first_weights_only(stage.addressing, pretrain_steps):
            resources |= {"threads": 1, "runtime": 60}
        resources["gpu"] = gpus_of(stage.addressing, resources.get("gpu", 0), pretrain_steps)
        found.append(
            Stage(
                name=stage.addressing,
                cmd=stage.cmd,
                needs=sorted(other.addressing for other in repo.index.graph.successors(stage)),
                deps=[dep.def_path for dep in stage.deps if dep not in stage.params],
                params=sorted(key for dep in stage.params for key in dep.params),
                outs=[out.def_path for out in stage.outs],
                persisted=[out.def_path for out in stage.outs if out.persist],
                threads=resources.pop("threads", 1),
                resources={key: value for key, value in resources.items() if value},
                retries=(stage.meta or {}).get("retries"),
            )
        )
    return sorted(found, key=lambda stage: stage.name)


def renew_marks(stages: list[Stage], changed: Iterable[str]) -> None:
    """Mark as done what is neither changed nor depends on what is; unmark the rest.

    A job's note outlives that, if all it tells is still so: then only the commit is missing.
    """
    stale = set(changed)
    while more := {s.name for s in stages if stale.intersection(s.needs)} - stale:
        stale |= more
    for stage in stages:
        done, computed = Path(stage.done), Path(stage.computed)
        for mark in (done, computed):
            mark.parent.mkdir(parents=True, exist_ok=True)
        if stage.name not in stale:
            done.touch()
            computed.touch()
            continue
        done.unlink(missing_ok=True)
        if not is_computed(stage):
            computed.unlink(missing_ok=True)


def is_computed(stage: Stage) -> bool:
    """Return whether a job made the present outputs from the present inputs."""
    try:
        note = json.loads(Path(stage.computed).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return bool(note == {"inputs": _inputs(stage), "outputs": _files(stage.outs)})


def compute(stage: Stage) -> int:
    """Run a stage's command as DVC would, but without it; return the command's exit status.

    A Snakemake that was killed leaves its jobs on other nodes at work. The same job of the next one
    waits until they end, and has nothing to do where they finished.
    """
    path = FOLDER / "computing" / stage.name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        if not lock(file.fileno(), path):
            file.seek(0)
            print(f"{stage.name}: process {file.read()} is at it; waiting for it", flush=True)
            lock(file.fileno(), path, waits=True)
        if is_computed(stage) and not is_forced(stage):
            return 0
        file.truncate(0)
        file.write(this_process())
        file.flush()
        return _execute(stage)


def _execute(stage: Stage) -> int:
    """Run it; signals are handed on, so that a training saves itself before the job ends."""
    inputs = _inputs(stage)
    for out in map(Path, set(stage.outs) - set(stage.persisted)):
        if out.is_dir() and not out.is_symlink():
            shutil.rmtree(out)
        else:
            out.unlink(missing_ok=True)
        out.parent.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {"DVC_ROOT": str(Path.cwd()), "DVC_STAGE": stage.name}
    # not sh: Debian's stays between, and a signal from Slurm to all processes would end it, and
    # with it the command before that has saved itself
    process = subprocess.Popen(["bash", "-c", stage.cmd], env=environment)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, lambda received, frame: process.send_signal(received))
    status = process.wait()
    if status == 0:
        note = {"inputs": inputs, "outputs": _files(stage.outs)}
        write_text(Path(stage.computed), json.dumps(note))
    return status if status >= 0 else 128 - status


def commit(stage: Stage, patience_s: int) -> int:
    """Hand a job's outputs to DVC; return DVC's exit status.

    A shared file system may take ``patience_s`` seconds to show here what another node wrote.

    Raises:
        UserError: what the job read or wrote has changed, or its entry in dvc.yaml, so DVC would
            record a wrong origin.
    """
    if stage.definition not in [now.definition for now in read_stages()]:
        raise UserError(
            f"{stage.name}: dvc.yaml changed while its job ran; start snakemake again to have it"
            " computed anew"
        )
    deadline = time.monotonic() + patience_s
    while not (whole := is_computed(stage)) and time.monotonic() < deadline:
        time.sleep(1)
    if not whole:
        raise UserError(
            f"{stage.name}: code, settings, data or results changed while its job ran;"
            " start snakemake again to have it computed anew"
        )
    command = ["dvc", "--wait-for-lock", "commit", "--quiet", "--force", stage.name]
    return subprocess.run(command).returncode


def _inputs(stage: Stage) -> dict[str, Any]:
    from omegaconf import OmegaConf

    params = OmegaConf.load(PARAMS_FILE)
    values = {key: OmegaConf.select(params, key) for key in stage.params}
    plain = OmegaConf.to_container(OmegaConf.create(values))
    return {"cmd": stage.cmd, "params": plain, "deps": _files(stage.deps)}


def _files(paths: list[str]) -> list[list[str | int]]:
    """Return name, size and time of change of every file at or below the paths."""
    found: set[Path] = set()
    for path in map(Path, paths):
        found |= set(path.rglob("*")) if path.is_dir() else {path}
    kept = sorted(f for f in found if f.is_file() and f.parent.name != "__pycache__")
    return [[str(f), f.stat().st_size, f.stat().st_mtime_ns] for f in kept]


def _run(action: str, name: str) -> int:
    end_with_parent()  # a Snakemake that was killed leaves no job behind to write beside the next
    (stage,) = (stage for stage in planned() if stage.name == name)
    if action == "repro":
        take_gpus(int(stage.resources.get("gpu", 0)), FOLDER / "gpus")
        # in front of the command: behind it DVC gives up after three seconds, and with it a day
        force = ["--force"] if is_forced(stage) else []
        os.execvp("dvc", ["dvc", "--wait-for-lock", "repro", "--single-item", *force, name])
    return compute(stage) if action == "compute" else commit(stage, PATIENCE_S)


if __name__ == "__main__":
    with user_errors_end():
        sys.exit(_run(*sys.argv[1:]))
