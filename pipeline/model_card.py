"""A model card: what a trained restorer is, from the facts in its file."""

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.config import PARAMS_FILE, read_params
from pipeline.files import sha256_of
from pipeline.models.build import parameter_count
from pipeline.paths import MODEL_FILE, MODELS, Run
from pipeline.restoration import InRange

TEMPLATES = Path(__file__).parent / "templates"
KNOWN = ("task", "method", "seed", "steps", "device", "precision", "torch")


def model_card(path: Path, network: InRange, facts: dict[str, Any]) -> str:
    """Return a model's card as Markdown.

    Scores are those of reports/metrics, if the file is the run's own below data/models; sources
    and licences those of params.yaml, if the task's synthetic pairs are still made as the file
    says. Elsewhere they are not known.
    """
    run = _run(path)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), undefined=StrictUndefined, trim_blocks=True
    )
    sources, licences = _sources(facts) if run else ([], [])
    black, white = network.image_range
    text: str = environment.get_template("model_card.md").render(
        name=run.training.relative_to(MODELS).as_posix() if run else path.stem,
        file=run.training.relative_to(MODELS).as_posix() if run else path.name,
        facts={name: facts.get(name) and _plain(facts[name]) for name in KNOWN},
        restorer=_plain(facts["restorer"]),
        parameters=parameter_count(network.requires_grad_(True)),
        factor=network.factor,
        black=black,
        white=white,
        sha256=sha256_of(path),
        synthetic=_plain(facts.get("synthetic")),
        train=_plain(facts.get("train")),
        method_settings=_plain(facts.get("method_settings")),
        sources=sources,
        licences=licences,
        scores=json.loads(run.metrics.read_text()) if run and run.metrics.is_file() else {},
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


def _sources(facts: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return what the splits of the task were made of, and the sources' licences."""
    from dataclasses import asdict

    params = read_params() if PARAMS_FILE.is_file() else None
    task = params.tasks.get(facts.get("task", "")) if params else None
    if params is None or task is None:
        return [], []
    now = json.loads(json.dumps(asdict(task.synthetic)))
    if now != facts.get("synthetic"):
        return [], []
    chosen = {split: name for split, name in vars(task.sources).items() if split != "test"}
    lines = [f"{split}: {name}" for split, name in chosen.items()]
    names = dict.fromkeys(chosen.values())
    return lines, [f"{name}: {params.sources[name].licence}" for name in names]


def _plain(value: Any) -> str:
    """Return a value as one line that cannot break out of its place in the page."""
    text = value if isinstance(value, str) else json.dumps(value)
    return "".join(c for c in text if c.isprintable() and c not in "`|<>")
