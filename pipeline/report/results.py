"""What there is to report of each task, and what params.yaml says of its methods."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.config.methods import TrainedMethod
from pipeline.config.params import Params
from pipeline.runtime.paths import SIMULATED, Run

Values = NDArray[np.float64]
Log = dict[str, Values]
"""Column to its values, one a logged interval; NaN where a row has none."""


@dataclass(frozen=True)
class TrainedModel:
    """What is known of one trained restorer besides its weights.

    ``facts`` are those in its file, of the training; ``evaluation`` those of the evaluation, such
    as its precision and device. Either may lack what an older version did not record.
    """

    run: Run
    facts: dict[str, Any]
    log: Log
    evaluation: dict[str, Any]

    @property
    def giga_macs(self) -> float | None:
        """Multiplications for 128x128 pixels, in 1e9; None if not recorded."""
        found: float | None = self.facts.get("giga_macs_128")
        return found

    @property
    def restorer(self) -> str:
        """The network and its settings, such as 'unet (levels 4, channels 64)'."""
        settings = dict(self.facts["restorer"])
        name = settings.pop("kind")
        return f"{name} ({', '.join(f'{key} {value}' for key, value in settings.items())})"


@dataclass(frozen=True)
class DataSet:
    """Scores of every restorer on the same images of one data set, under one protocol.

    ``ids`` and ``scenes`` are of the images that have a clean version; ``unscored`` counts the
    others. ``domain`` is real or synthetic. ``simulated``: degraded by this pipeline, not by a
    camera. ``seen``: images of its camera or degradation are trained on. ``psnr`` (dB), ``ssim``
    and ``lpips`` map a restorer, DEGRADED among them, to (seeds, images). ``lpips`` is empty where
    it was not measured; ``no_lpips`` then says why. ``niqe`` is of images that are not scored, if
    none of the data set is and all restorers have it; else it is empty, and ``no_niqe`` says why.
    """

    task: str
    name: str
    protocol: str
    ids: tuple[str, ...]
    scenes: tuple[str, ...]
    domain: str
    simulated: bool
    seen: bool
    unscored: int
    psnr: dict[str, Values]
    ssim: dict[str, Values]
    lpips: dict[str, Values]
    no_lpips: str
    niqe: dict[str, Values]
    no_niqe: str

    @property
    def of_real_domain(self) -> bool:
        """Whether its images come from where the unlabeled photographs come from."""
        return self.domain == "real" and self.seen


@dataclass(frozen=True)
class TaskResults:
    """Everything about one task; models map a method to one model a seed, in params' order."""

    name: str
    data_sets: tuple[DataSet, ...]
    models: dict[str, tuple[TrainedModel, ...]]


def trained_methods(params: Params) -> dict[str, TrainedMethod]:
    """Return the settings of the methods that were trained here, by name."""
    return {
        name: method for name, method in params.methods.items() if isinstance(method, TrainedMethod)
    }


def released(params: Params) -> list[str]:
    """Return the methods that were not trained here: weights of the authors' release."""
    return [name for name in params.methods if name not in trained_methods(params)]


def bounds(params: Params) -> list[str]:
    """Return the methods that were given the truth of real photographs: no competitors."""
    return [name for name, method in trained_methods(params).items() if method.is_bound]


def updates(params: Params, method: str) -> int:
    """Return the restorer updates of a method's own training, without a pretraining it shares."""
    settings = trained_methods(params).get(method)
    shared = settings is not None and settings.start == "pretrained"
    return params.train.steps - (params.train.pretrain_steps if shared else 0)


def real_domain(params: Params, task: str) -> str:
    """Return how the real photographs that the methods of a task are adapted to are called."""
    source = params.tasks[task].sources.real
    return f"{source}, {SIMULATED}" if params.tasks[task].simulated_real else source
