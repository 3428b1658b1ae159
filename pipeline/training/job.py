"""One training as a value: what to train, on what, up to which step, where the results go."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from pipeline.config.methods import ReleasedSettings, TrainedMethod, VanillaSettings
from pipeline.config.params import Params
from pipeline.config.restorers import RestorerSettings
from pipeline.config.running import Train
from pipeline.config.tasks import SyntheticDomain
from pipeline.runtime.paths import STATE_FILE, Run, pretrained, task_images

PRETRAINED = "pretrained"
"""Stands in place of a method's name for the training that the methods of a seed share."""


@dataclass(frozen=True)
class Job:
    """One training.

    ``images`` is the folder of the stores of both domains, ``start_from`` the state of another
    training or None. ``keeps`` says what ``folder`` receives: the whole state, for others to go on
    from, or the averaged restorer alone. Durations go to ``timings``.
    """

    task_name: str
    method_name: str
    seed: int
    synthetic: SyntheticDomain
    image_range: tuple[float, float]
    learning_rate_factor: float
    method: TrainedMethod
    restorer: RestorerSettings
    train: Train
    images: Path
    start_from: Path | None
    last_step: int
    keeps: Literal["state", "model"]
    folder: Path
    timings: Path

    @property
    def title(self) -> str:
        """How progress and errors name it."""
        return f"{self.task_name}, {self.method_name}, seed {self.seed}"

    @classmethod
    def of_method(cls, params: Params, task: str, method: str, seed: int) -> Self:
        """Return the training of a method, which ends with a model.

        Raises:
            TypeError: the method is not trained here.
        """
        settings = params.methods[method]
        if isinstance(settings, ReleasedSettings):
            raise TypeError(f"methods.{method}: released weights are not trained")
        run = Run(task, method, seed)
        shared = settings.start == "pretrained"
        return cls(
            method_name=method,
            method=settings,
            start_from=pretrained(task, seed) / STATE_FILE if shared else None,
            last_step=params.train.steps,
            keeps="model",
            folder=run.training,
            timings=run.timings,
            **_of_task(params, task, seed),
        )

    @classmethod
    def pretraining(cls, params: Params, task: str, seed: int) -> Self:
        """Return the training on synthetic pairs that the methods of a seed start from."""
        return cls(
            method_name=PRETRAINED,
            method=VanillaSettings(kind="vanilla", start="scratch"),
            start_from=None,
            last_step=params.train.pretrain_steps,
            keeps="state",
            folder=pretrained(task, seed),
            timings=Run(task, PRETRAINED, seed).timings,
            **_of_task(params, task, seed),
        )


def _of_task(params: Params, task: str, seed: int) -> dict[str, Any]:
    settings = params.tasks[task]
    return {
        "task_name": task,
        "seed": seed,
        "synthetic": settings.synthetic,
        "image_range": settings.image_range,
        "learning_rate_factor": settings.learning_rate_factor,
        "restorer": params.restorer_of(task),
        "train": params.train,
        "images": task_images(task),
    }
