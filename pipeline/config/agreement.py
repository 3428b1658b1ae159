"""What must hold between two sections of the configuration."""

import math

from pipeline.config.build import ConfigError
from pipeline.config.methods import ReleasedSettings
from pipeline.config.params import Params
from pipeline.config.sources import FetchedSource, FolderSource


def check_agreement(params: Params) -> None:
    """Refuse values that are right alone and wrong together.

    Raises:
        ConfigError: names the keys.
    """
    _check_seeds(params)
    _check_sources(params)
    _check_tasks(params)
    _check_methods(params)
    _check_train(params)


def _check_seeds(params: Params) -> None:
    if len(set(params.seeds)) != len(params.seeds):
        raise ConfigError(f"seeds: found {list(params.seeds)}, expected each seed once")


def _check_sources(params: Params) -> None:
    for label, source in params.sources.items():
        for name in source.test if isinstance(source, FolderSource) else ():
            if not name or "/" in name:
                raise ConfigError(
                    f"sources.{label}.test: found {name!r} as the name of a test set,"
                    " expected a text without '/'"
                )


def _check_tasks(params: Params) -> None:
    known = ", ".join(params.sources)
    for label, task in params.tasks.items():
        _check_image_range(f"tasks.{label}.image_range", task.image_range)
        if task.synthetic.draw == "anew" and task.synthetic.copies != 1:
            raise ConfigError(
                f"tasks.{label}.synthetic.copies: found {task.synthetic.copies}, expected 1:"
                " nothing is stored where each crop is drawn anew (draw: stored would)"
            )
        if task.synthetic.draw == "anew" and task.synthetic.degradation is None:
            raise ConfigError(
                f"tasks.{label}.synthetic.degradation: found null, expected a degradation to draw"
                " anew; pairs that a source brings go with draw: stored"
            )
        if task.restorer is not None and task.restorer.kind != params.restorer.kind:
            raise ConfigError(
                f"tasks.{label}.restorer.kind: found {task.restorer.kind!r}, expected"
                f" {params.restorer.kind!r}: sizes may differ within a run, not the kind"
                " (dvc.yaml names its file)"
            )
        for split, source in vars(task.sources).items():
            if source not in params.sources:
                raise ConfigError(
                    f"tasks.{label}.sources.{split}: found {source!r}, expected one of"
                    f" sources: {known}"
                )


def _check_image_range(key: str, found: tuple[float, float]) -> None:
    if found[0] >= found[1]:
        raise ConfigError(
            f"{key}: found {list(found)}, expected black below white, such as [0, 1] or [-1, 1]"
        )


def _check_methods(params: Params) -> None:
    train = params.train
    largest = math.lcm(*(restorer.factor for restorer in params.restorers()))
    for label, method in params.methods.items():
        key = f"methods.{label}"
        if isinstance(method, ReleasedSettings):
            _check_released(params, label, method)
            continue
        factor = method.patch_factor(largest)
        if train.patch % factor:
            raise ConfigError(
                f"train.patch: found {train.patch}, expected a multiple of {factor}"
                f" ({key} works on smaller images)"
            )
        if train.compile and not method.compiles:
            raise ConfigError(
                f"train.compile: found true, expected false: {key} reads or freezes parts of"
                " networks, which compiled ones hide"
            )
        if method.is_bound:
            _check_truth(params, label)
        method.check(key, train.patch)


def _check_released(params: Params, label: str, method: ReleasedSettings) -> None:
    for task in params.tasks:
        if task not in method.weights:
            raise ConfigError(
                f"methods.{label}.weights.{task}: missing, expected the weight file of task {task}:"
                f" +methods.{label}.weights.{task}={{file:PATH,sha256:HASH,image_range:[0,1]}}"
            )
        key = f"methods.{label}.weights.{task}.image_range"
        _check_image_range(key, method.weights[task].image_range)


def _check_truth(params: Params, label: str) -> None:
    for name, task in params.tasks.items():
        source = task.sources.real
        found = params.sources[source]
        packed = isinstance(found, FetchedSource) and found.truth_for is not None
        if task.simulated_real is None and not packed:
            raise ConfigError(
                f"methods.{label}: task {name} has no truth of its real training photographs"
                f" (tasks.{name}.simulated_real is null, and sources.{source} packs none, as its"
                f" truth_for would say); leave it out: '~methods.{label}'"
            )


def _check_train(params: Params) -> None:
    train = params.train
    shares = train.nodes * train.devices * train.accumulate
    if train.batch % shares:
        raise ConfigError(
            f"train.batch: found {train.batch}, expected a multiple of {shares} ="
            f" {train.nodes} nodes x {train.devices} devices x {train.accumulate} shares"
        )
    if train.validate_every_steps % train.log_every_steps:
        raise ConfigError(
            f"train.validate_every_steps: found {train.validate_every_steps}, expected a multiple"
            f" of train.log_every_steps = {train.log_every_steps}: scores stand in rows of the log"
        )
    if params.resources.gpu not in (0, train.devices):
        raise ConfigError(
            f"resources.gpu: found {params.resources.gpu}, expected 0 (no GPU) or train.devices ="
            f" {train.devices}: a training uses a GPU for each of its processes"
        )
    if train.pretrain_steps >= train.steps:
        raise ConfigError(
            f"train.pretrain_steps: found {train.pretrain_steps}, expected less than"
            f" train.steps = {train.steps}"
        )
    for restorer in params.restorers():
        if train.patch % restorer.factor:
            raise ConfigError(
                f"train.patch: found {train.patch}, expected a multiple of {restorer.factor}"
                f" (restorer {restorer.kind} needs it)"
            )
    if params.evaluate.tile_overlap * 2 > params.evaluate.tile:
        raise ConfigError(
            f"evaluate.tile_overlap: found {params.evaluate.tile_overlap},"
            f" expected at most half of evaluate.tile = {params.evaluate.tile}"
        )
