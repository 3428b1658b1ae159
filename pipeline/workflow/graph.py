"""DVC's graph as a scheduler needs it, and whether a job without DVC made what lies there."""

import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config.params import PARAMS_FILE
from pipeline.config.read import read_params
from pipeline.runtime.errors import UserError
from pipeline.workflow.gpus import gpus_of, writes_first_weights_only
from pipeline.workflow.project import (
    GRAPH_VARIABLE,
)

FOLDER = Path(".snakemake/dvc")

"""Marks that Snakemake looks at in place of the data, which DVC replaces as it likes."""

FORCED_VARIABLE = "PIPELINE_FORCED"

"""Environment variable: the rules that run although they are up to date."""


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


def is_forced(stage: Stage) -> bool:
    """Return whether a stage runs although it is up to date."""
    return stage.rule in os.environ.get(FORCED_VARIABLE, "").split()


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


def is_computed(stage: Stage) -> bool:
    """Return whether a job made the present outputs from the present inputs."""
    try:
        note = json.loads(Path(stage.computed).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return bool(note == {"inputs": inputs_of(stage), "outputs": files_of(stage.outs)})


def inputs_of(stage: Stage) -> dict[str, Any]:
    """Return what decides the result of a stage, as it is now."""
    from omegaconf import OmegaConf

    params = OmegaConf.load(PARAMS_FILE)
    values = {key: OmegaConf.select(params, key) for key in stage.params}
    plain = OmegaConf.to_container(OmegaConf.create(values))
    return {"cmd": stage.cmd, "params": plain, "deps": files_of(stage.deps)}


def files_of(paths: list[str]) -> list[list[str | int]]:
    """Return name, size and time of change of every file at or below the paths."""
    found: set[Path] = set()
    for path in map(Path, paths):
        found |= set(path.rglob("*")) if path.is_dir() else {path}
    kept = sorted(f for f in found if f.is_file() and f.parent.name != "__pycache__")
    return [[str(f), f.stat().st_size, f.stat().st_mtime_ns] for f in kept]
