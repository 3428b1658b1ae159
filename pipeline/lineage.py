"""Which commit and which photographs a model file comes from, as dvc.lock records them.

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

from pipeline.config import PARAMS_FILE
from pipeline.errors import UserError
from pipeline.mend_lock import LOCK
from pipeline.report.provenance import git

SPLITS = {
    "synthetic": "clean photographs of the synthetic pairs",
    "real": "real photographs without truth",
    "unpaired": "clean photographs of another collection",
}
"""What a training sees of a task's sources."""


@dataclass(frozen=True)
class Lineage:
    """Where a model comes from; ``commit`` is None and the others empty where nothing records it.

    ``commit`` is the first whose dvc.lock names the very file; ``sources`` maps what the
    photographs were for to their source, ``licences`` each source to its licence.
    """

    commit: str | None
    sources: dict[str, str]
    licences: dict[str, str]


def lineage(path: Path, facts: dict[str, Any]) -> Lineage:
    """Return where a model file comes from, if the project in the current folder made it.

    Args:
        path: the model.
        facts: those in the file.

    Raises:
        UserError: dvc.lock is damaged.
    """
    with path.open("rb") as file:
        md5 = hashlib.file_digest(file, "md5").hexdigest()  # DVC's own kind
    stages = _stages()
    if not any(out.get("md5") == md5 for out in _trained(stages)):
        return Lineage(None, {}, {})
    commits = git("log", "--format=%H", f"-S{md5}", "--", str(LOCK)).split()
    task, method = facts.get("task"), facts.get("method_settings") or {}
    chosen = _params(stages, f"synthesize@{task}", f"tasks.{task}").get("sources", {})
    seen = [name for name in SPLITS if name != "unpaired" or method.get("target") == "unpaired"]
    if method.get("adaptation") == "released":  # what its authors trained it on is theirs to say
        seen = []
    sources = {SPLITS[name]: str(chosen[name]) for name in seen if name in chosen}
    licences = {
        name: str(_params(stages, f"download@{name}", f"sources.{name}").get("licence", "unknown"))
        for name in sources.values()
    }
    return Lineage(commits[-1] if commits else None, sources, licences)


def _stages() -> dict[str, Any]:
    if not LOCK.is_file():
        return {}
    try:
        lock = OmegaConf.to_container(OmegaConf.load(LOCK))
    except YAMLError:
        raise UserError(f"{LOCK}: damaged; python -m pipeline.mend_lock mends it") from None
    return dict(lock.get("stages", {})) if isinstance(lock, dict) else {}


def _trained(stages: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for name, stage in stages.items():
        if name.startswith("train@"):
            yield from stage.get("outs", [])


def _params(stages: dict[str, Any], stage: str, key: str) -> dict[str, Any]:
    """Return the settings that a stage was run with."""
    params = stages.get(stage, {}).get("params", {}).get(str(PARAMS_FILE), {})
    found: dict[str, Any] = params.get(key, {})
    return found
