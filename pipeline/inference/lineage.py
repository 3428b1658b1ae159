"""Which commit and photographs a model file comes from, and its scores, as dvc.lock records them.

A model file holds its configuration, but neither: its bytes follow from code, settings and data
alone, while a commit may change without them. dvc.lock names the file by its hash, so a copy is
known wherever it lies, and another file of the same name is not taken for it.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from yaml import YAMLError

from pipeline.config.params import PARAMS_FILE
from pipeline.runtime.errors import UserError
from pipeline.runtime.git import git
from pipeline.runtime.paths import METRICS
from pipeline.workflow.mend_lock import LOCK

SPLITS = {
    "synthetic": "clean photographs of the synthetic pairs",
    "real": "real photographs without truth",
    "unpaired": "clean photographs of another collection",
}
"""What a training sees of a task's sources."""


@dataclass(frozen=True)
class Lineage:
    """Where a model comes from: None and empty where nothing records it.

    ``commit`` is the first whose dvc.lock names the very file; ``sources`` maps what the
    photographs were for to their source, ``licences`` each source to its licence. ``metrics`` is
    the file of its scores, if that is still the one which its evaluation left.
    """

    commit: str | None
    sources: dict[str, str]
    licences: dict[str, str]
    metrics: Path | None


def lineage(path: Path, facts: dict[str, Any]) -> Lineage:
    """Return where a model file comes from, if the project in the current folder made it.

    Args:
        path: the model.
        facts: those in the file.

    Raises:
        UserError: dvc.lock is damaged.
    """
    md5 = _md5(path)
    stages = _stages()
    metrics = _metrics(stages, md5)
    if not any(out.get("md5") == md5 for out in _trained(stages)):
        return Lineage(None, {}, {}, metrics)
    commits = git("log", "--format=%H", f"-S{md5}", "--", str(LOCK)).split()
    task, method = facts.get("task"), facts.get("method_settings") or {}
    chosen = _params(stages, f"synthesize@{task}", f"tasks.{task}").get("sources", {})
    seen = [name for name in SPLITS if name != "unpaired" or method.get("target") == "unpaired"]
    if method.get("kind") == "released":  # what its authors trained it on is theirs to say
        seen = []
    sources = {SPLITS[name]: str(chosen[name]) for name in seen if name in chosen}
    licences = {
        name: str(_params(stages, f"download@{name}", f"sources.{name}").get("licence", "unknown"))
        for name in sources.values()
    }
    return Lineage(commits[-1] if commits else None, sources, licences, metrics)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()  # DVC's own kind


def _stages() -> dict[str, Any]:
    if not LOCK.is_file():
        return {}
    try:
        lock = OmegaConf.to_container(OmegaConf.load(LOCK))
    except YAMLError:
        raise UserError(f"{LOCK}: damaged; python -m pipeline mend_lock mends it") from None
    return dict(lock.get("stages", {})) if isinstance(lock, dict) else {}


def _trained(stages: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name, stage in stages.items():
        if name.startswith("train@"):
            yield from stage.get("outs", [])


def _metrics(stages: dict[str, Any], md5: str) -> Path | None:
    """Return the scores of a model: those in git may be of weights that another machine made."""
    for name, stage in stages.items():
        if not name.startswith("evaluate@"):
            continue
        if any(dependency.get("md5") == md5 for dependency in stage.get("deps", [])):
            for out in stage.get("outs", []):
                path = Path(out["path"])
                if path.is_relative_to(METRICS) and path.is_file() and _md5(path) == out.get("md5"):
                    return path
    return None


def _params(stages: dict[str, Any], stage: str, key: str) -> dict[str, Any]:
    """Return the settings that a stage was run with."""
    params = stages.get(stage, {}).get("params", {}).get(str(PARAMS_FILE), {})
    found: dict[str, Any] = params.get(key, {})
    return found
