"""Where the numbers come from: commit, versions, settings, and what each protocol means."""

import platform
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version

from pipeline.config.params import PARAMS_FILE, Params
from pipeline.report.results import TaskResults, TrainedModel, released
from pipeline.runtime.git import git, no_clone
from pipeline.runtime.paths import REPORTS, TABLES

CODE = ("pipeline", "stages", "dvc.yaml", "requirements.lock")
"""The code, and the versions of what it imports."""
DECIDING = (*CODE, "params.yaml")
"""What decides the results, so that a commit of results or of documents changes no report."""

PACKAGES = ("numpy", "scikit-image", "scipy", "diffusers")

PROTOCOLS = {
    "sidd": "RGB, clamped, not rounded, peak 1; SSIM over the three planes as one volume, Gaussian"
    " window 11x11x11 (MATLAB's psnr and ssim, as used for the SIDD validation blocks)",
    "y": "luma of 8-bit RGB (ITU-R BT.601), peak 255; SSIM with a Gaussian window 11x11, only"
    " where it fits into the image (the deraining literature)",
    "rgb": "8-bit RGB, peak 255; SSIM with a uniform window 7x7 per channel, only where it fits"
    " into the image (scikit-image's defaults, no alignment)",
}
"""One line on each protocol of pipeline/evaluation/metrics.py."""


@dataclass(frozen=True)
class Code:
    """State of the code.

    ``commit`` is the last one that changed what decides the results. ``modified``: files of CODE
    differ from the commit checked out; ``params_modified``: params.yaml does. All None without git.
    """

    commit: str | None
    modified: bool | None
    params_modified: bool | None


def code_state() -> Code:
    """Return the state of the working tree in the current folder."""
    commit = git("log", "-1", "--format=%H", "--", *DECIDING)
    if not commit:
        return Code(None, None, None)
    return Code(
        commit=commit,
        modified=bool(git("status", "--porcelain", "--", *CODE)),
        params_modified=bool(git("status", "--porcelain", "--", "params.yaml")),
    )


def rebuild_command(code: Code, stage: str = "") -> str:
    """Return the command line that makes a stage, or everything, anew from the commit.

    Settings that are in no commit come from their copy beside the tables, which git ignores.
    """
    repro = f"dvc repro {stage}".rstrip()
    if not code.commit:
        return repro
    if not code.params_modified:
        return f"git checkout {code.commit} && {repro}"
    # what is not committed, dvc.lock among it, would keep git from the commit
    settings = REPORTS / TABLES / PARAMS_FILE.name
    return f"git stash && git checkout {code.commit} && cp {settings} {PARAMS_FILE} && {repro}"


def protocols_used(results: list[TaskResults]) -> dict[str, str]:
    """Return name and explanation of the protocols behind the scores."""
    used = {data_set.protocol for task in results for data_set in task.data_sets if data_set.ids}
    return {name: text for name, text in PROTOCOLS.items() if name in used}


def provenance(params: Params, results: list[TaskResults], code: Code) -> list[tuple[str, str]]:
    """Return label and value of everything that it takes to know where the numbers come from.

    What no model knows, such as the device of the training if none was trained here, is left out.
    """
    models = [model for task in results for chosen in task.models.values() for model in chosen]
    taken_over = [model for model in models if model.run.method in released(params)]
    trained_here = len(taken_over) < len(models)
    train = params.train
    facts = [
        ("Commit of code and settings", code.commit or f"unknown: {_why_unknown()}"),
        ("Code and requirements.lock", _state(code.modified)),
        ("params.yaml", _state(code.params_modified)),
        ("Preset", params.preset),
        ("Seeds", _listed(params.seeds)),
        ("Restorer", _listed(model.restorer for model in models)),
        ("Parameters", _listed(f"{model.facts['parameters']:,}" for model in models)),
        ("Released weights, not trained here", _listed(map(_released_file, taken_over))),
        (
            "Restorer updates",
            f"{train.steps:,}, of which {train.pretrain_steps:,} in the shared pretraining"
            if trained_here
            else "",
        ),
        (
            "Batch",
            f"{train.batch} of each domain, patches of {train.patch} pixels"
            if trained_here
            else "",
        ),
        ("Device of the training", _known(models, "device")),
        ("Precision of the training", _known(models, "precision")),
        ("Device of the evaluation", _of_evaluations(models, "device")),
        ("Precision of the evaluation", _of_evaluations(models, "precision")),
        ("Threads", str(train.threads)),
        ("Bootstrap", f"{params.report.bootstrap_samples:,} resamples of whole scenes"),
        ("Python", platform.python_version()),
        ("torch", _known(models, "torch")),
        *((name, version(name)) for name in PACKAGES),
    ]
    return [(label, value) for label, value in facts if value]


def _why_unknown() -> str:
    return no_clone() or "nothing is committed yet"


def _released_file(model: TrainedModel) -> str:
    digest = model.facts["method_settings"]["sha256"]
    return f"{model.run.method}, {model.run.task}: sha256 {digest}"


def _known(models: Iterable[TrainedModel], fact: str) -> str:
    return _listed(model.facts[fact] for model in models if fact in model.facts)


def _of_evaluations(models: Iterable[TrainedModel], fact: str) -> str:
    return _listed(model.evaluation[fact] for model in models if fact in model.evaluation)


def _state(modified: bool | None) -> str:
    if modified is None:
        return "unknown"
    return "modified, differs from the commit" if modified else "as committed"


def _listed(values: Iterable[object]) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values))
