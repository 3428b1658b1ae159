"""The resolved configuration as frozen dataclasses."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pipeline.config.build import Setting
from pipeline.config.methods import MethodSettings
from pipeline.config.restorers import RestorerSettings
from pipeline.config.running import Evaluate, Report, Resources, Train
from pipeline.config.sources import Source
from pipeline.config.tasks import Task

PARAMS_FILE = Path("params.yaml")


@dataclass(frozen=True)
class Params:
    """Everything in params.yaml; dict keys are the names used in stage names and paths."""

    preset: str
    seeds: Annotated[tuple[int, ...], Setting(low=0, high=2**32 - 1)]
    sources: dict[str, Source]
    tasks: dict[str, Task]
    methods: dict[str, MethodSettings]
    restorer: RestorerSettings
    train: Train
    evaluate: Evaluate
    report: Report
    resources: Resources

    def restorer_of(self, task: str) -> RestorerSettings:
        """Return the restorer of a task: its own, or that of the run."""
        return self.tasks[task].restorer or self.restorer

    def restorers(self) -> dict[RestorerSettings, list[str]]:
        """Return every restorer that is trained, with the tasks that it is trained for."""
        found: dict[RestorerSettings, list[str]] = {}
        for name in self.tasks:
            found.setdefault(self.restorer_of(name), []).append(name)
        return found
