"""A model card: what a trained restorer is, from the facts in its file."""

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.inference.lineage import lineage
from pipeline.inference.model import InRange
from pipeline.models.build import giga_macs, parameter_count
from pipeline.runtime.files import sha256_of
from pipeline.runtime.paths import MODEL_FILE, MODELS, Run

TEMPLATES = Path(__file__).parent / "templates"
KNOWN = ("task", "method", "seed", "steps", "device", "precision", "torch")


def model_card(path: Path, network: InRange, facts: dict[str, Any]) -> str:
    """Return a model's card as Markdown.

    Network, parameters and multiplications follow from the configuration in the file. Scores,
    commit, sources and licences are those with which dvc.lock records this very file, wherever it
    lies. Without that they are not known.

    Raises:
        UserError: dvc.lock is damaged.
    """
    run = _run(path)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True
    )
    origin = lineage(path, facts)
    black, white = network.image_range
    text: str = environment.get_template("model_card.md").render(
        name=run.training.relative_to(MODELS).as_posix() if run else path.stem,
        file=run.training.relative_to(MODELS).as_posix() if run else path.name,
        facts={name: facts.get(name) and _plain(facts[name]) for name in KNOWN},
        restorer=_plain(facts["restorer"]),
        parameters=parameter_count(network.requires_grad_(True)),
        giga_macs=giga_macs(network),
        commit=origin.commit,
        factor=network.factor,
        black=black,
        white=white,
        sha256=sha256_of(path),
        synthetic=_plain(facts.get("synthetic")),
        train=_plain(facts.get("train")),
        method_settings=_plain(facts.get("method_settings")),
        sources={_plain(what): _plain(source) for what, source in origin.sources.items()},
        licences={_plain(name): _plain(licence) for name, licence in origin.licences.items()},
        scores=json.loads(origin.metrics.read_text()) if origin.metrics else {},
    )
    return text.rstrip() + "\n"


def _run(path: Path) -> Run | None:
    """Return the run whose own model file this is."""
    parts = path.resolve().relative_to(MODELS.resolve()).parts if _is_below(path, MODELS) else ()
    if len(parts) != 3 or parts[2] != MODEL_FILE:
        return None
    method, _, seed = parts[1].rpartition("-")
    return Run(parts[0], method, int(seed)) if method and seed.isdigit() else None


def _is_below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _plain(value: Any) -> str:
    """Return a value as one line that cannot break out of its place in the page."""
    text = value if isinstance(value, str) else json.dumps(value)
    return "".join(c for c in text if c.isprintable() and c not in "`|<>")
