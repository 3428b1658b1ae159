"""The resolved configuration: params.yaml as frozen, checked dataclasses."""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pipeline.config.checks import ConfigError, Setting, build
from pipeline.config.data import Source, Task
from pipeline.config.learning import (
    Evaluate,
    Method,
    Released,
    Report,
    Resources,
    Train,
)
from pipeline.config.restorers import Restorer
from pipeline.errors import UserError

PARAMS_FILE = Path("params.yaml")


class NoTruthError(ConfigError):
    """A bound is in the run, but real training photographs of a task have no truth."""


@dataclass(frozen=True)
class Params:
    """Everything in params.yaml; dict keys are the names used in stage names and paths."""

    preset: str
    seeds: Annotated[tuple[int, ...], Setting(low=0)]
    sources: dict[str, Source]
    tasks: dict[str, Task]
    methods: dict[str, Method]
    restorer: Restorer
    train: Train
    evaluate: Evaluate
    report: Report
    resources: Resources

    def restorers(self) -> dict[Restorer, list[str]]:
        """Return every restorer that is trained, with the tasks that it is trained for."""
        found: dict[Restorer, list[str]] = {}
        for name, task in self.tasks.items():
            found.setdefault(task.restorer or self.restorer, []).append(name)
        return found


def check(values: Any) -> Params:
    """Return plain values as ``Params``.

    Raises:
        ConfigError: unknown or missing key, wrong type, value out of range, or values that do not
            go together.
    """
    params: Params = build(Params, values, "")
    for name, chosen in (
        ("seeds", params.seeds),
        ("sources", params.sources),
        ("tasks", params.tasks),
        ("methods", params.methods),
    ):
        if not chosen:
            raise ConfigError(f"{name}: found nothing, expected at least one")
        for label in chosen:
            fit = isinstance(label, str) and re.fullmatch(r"[A-Za-z0-9_.]+", label)
            if name != "seeds" and not fit:
                raise ConfigError(
                    f"{name}.{label}: found {label!r} as a name, expected letters, digits, '_' and"
                    " '.' (names become parts of paths)"
                )
    _check_seeds(params)
    _check_sources(params)
    _check_tasks(params)
    _check_methods(params)
    _check_train(params)
    return params


def read_params(path: Path = PARAMS_FILE) -> Params:
    """Return the checked configuration of a params.yaml.

    Raises:
        UserError: the file is missing or is not YAML.
        ConfigError: see ``check``.
    """
    from omegaconf import OmegaConf  # slow to import; not every importer of this module reads
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    if not path.is_file():
        raise UserError(f"{path}: not found; write it with 'python -m pipeline.compose'")
    try:
        values = OmegaConf.to_container(OmegaConf.load(path))
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError, OSError) as error:
        where = " ".join(str(error).split())
        raise UserError(f"{path}: not valid YAML: {where}") from None
    return check(values)


def _check_seeds(params: Params) -> None:
    if len(set(params.seeds)) != len(params.seeds):
        raise ConfigError(f"seeds: found {list(params.seeds)}, expected each seed once")


def _check_sources(params: Params) -> None:
    for label, source in params.sources.items():
        for name in getattr(source, "test", ()):
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
        if task.restorer is not None and task.restorer.name != params.restorer.name:
            raise ConfigError(
                f"tasks.{label}.restorer.name: found {task.restorer.name!r}, expected"
                f" {params.restorer.name!r}: sizes may differ within a run, not the kind"
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
    for label, method in params.methods.items():
        if method.adaptation == "released":
            _check_released(params, label, method)
        _check_baseline(params, label, method)
        if method.adaptation != "noise_space":
            continue
        key = f"methods.{label}"
        first, last = method.diffusion_step_range
        limit = method.schedule.diffusion_steps - 1
        if not 1 <= first <= last <= limit:
            raise ConfigError(
                f"{key}.diffusion_step_range: found [{first}, {last}],"
                f" expected first <= last within 1 to {limit}"
            )
        if method.schedule.beta_first > method.schedule.beta_last:
            raise ConfigError(f"{key}.schedule.beta_first: expected at most beta_last")
        for name, usual in (("conditions", "both"), ("target", "paired")):
            if method.residual_swapping and (found := getattr(method, name)) != usual:
                raise ConfigError(
                    f"{key}.{name}: found {found} beside residual_swapping: true, expected {usual}"
                    f" (the paper has no negatives there: {key}.residual_swapping=false, or the"
                    " methods only_synthetic, only_real and unpaired, which say so)"
                )
        denoiser = method.denoiser
        if not denoiser.channels:
            raise ConfigError(f"{key}.denoiser.channels: found an empty list, expected a level")
        for width in denoiser.channels:
            if width % denoiser.norm_groups:
                raise ConfigError(
                    f"{key}.denoiser.channels: found {width}, expected a multiple of"
                    f" norm_groups = {denoiser.norm_groups}"
                )
        if denoiser.channels[-1] % denoiser.attention_head_channels:
            raise ConfigError(
                f"{key}.denoiser.attention_head_channels: found"
                f" {denoiser.attention_head_channels}, expected a divisor of the last level's"
                f" {denoiser.channels[-1]} channels"
            )
        factor = denoiser.pixel_unshuffle * 2 ** (len(denoiser.channels) - 1)
        if params.train.patch % factor:
            raise ConfigError(
                f"train.patch: found {params.train.patch}, expected a multiple of {factor}"
                f" ({key}.denoiser halves it on each level)"
            )


def _check_released(params: Params, label: str, method: Released) -> None:
    for task in params.tasks:
        if task not in method.weights:
            raise ConfigError(
                f"methods.{label}.weights.{task}: missing, expected the weight file of task {task}:"
                f" +methods.{label}.weights.{task}={{file:PATH,sha256:HASH,image_range:[0,1]}}"
            )
        key = f"methods.{label}.weights.{task}.image_range"
        _check_image_range(key, method.weights[task].image_range)


def _check_baseline(params: Params, label: str, method: Method) -> None:
    train = params.train
    largest = math.lcm(*(restorer.factor for restorer in params.restorers()))
    patch_factor = getattr(method, "patch_factor", None)
    factor = patch_factor(largest) if patch_factor else 1
    if train.patch % factor:
        raise ConfigError(
            f"train.patch: found {train.patch}, expected a multiple of {factor}"
            f" (methods.{label} works on smaller images)"
        )
    if train.compile and not getattr(method, "compiles", True):
        raise ConfigError(
            f"train.compile: found true, expected false: methods.{label} reads or freezes parts of"
            " networks, which compiled ones hide"
        )
    if getattr(method, "is_bound", False):
        _check_truth(params, label)


def _check_truth(params: Params, label: str) -> None:
    for name, task in params.tasks.items():
        source = task.sources.real
        packed = getattr(params.sources[source], "truth_for", None) is not None
        if task.simulated_real is None and not packed:
            raise NoTruthError(
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
                f" (restorer {restorer.name} needs it)"
            )
    if params.evaluate.tile_overlap * 2 > params.evaluate.tile:
        raise ConfigError(
            f"evaluate.tile_overlap: found {params.evaluate.tile_overlap},"
            f" expected at most half of evaluate.tile = {params.evaluate.tile}"
        )
