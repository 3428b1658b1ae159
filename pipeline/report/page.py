"""The report as Markdown and HTML, with its figures and the cost page beside it."""

import base64
import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.config import Params
from pipeline.files import replacing, write_text
from pipeline.report.collect import DataSet, TaskResults, collect, released
from pipeline.report.conditions import condition_quality
from pipeline.report.cost import cost_record, cost_tables, method_costs, read_costs
from pipeline.report.curves import curves
from pipeline.report.drawing import Picture
from pipeline.report.examples import examples
from pipeline.report.grids import image_grid
from pipeline.report.provenance import Code, code_state, protocols_used, provenance
from pipeline.report.summary import summary_rows
from pipeline.report.tables import (
    Table,
    baseline,
    difference_table,
    notes,
    score_table,
    text_table,
)

TEMPLATES = Path(__file__).parent / "templates"
FIGURES = "figures"
PAPER = "Denoising as Adaptation, ICLR 2025, arXiv 2406.18516"


@dataclass(frozen=True)
class DataSetPart:
    """What is shown of one data set; without clean images there is no table."""

    data_set: DataSet
    scores: Table | None
    differences: Table | None
    notes: list[str]
    grid: Picture | None


@dataclass(frozen=True)
class TaskPart:
    """What is shown of one task; no pictures of training if nothing was trained here."""

    name: str
    training: list[Picture]
    data_sets: list[DataSetPart]


def write_report(params: Params, folder: Path) -> None:
    """Write summary.json, report.md, report.html, figures and the cost files into ``folder``.

    Reads below the current folder what params.yaml's lists name.

    Raises:
        UserError: see ``collect`` and ``examples``.
    """
    results = collect(params)
    code = code_state()
    parts = [_task_part(params, task) for task in results]
    _write_json(folder / "summary.json", summary_rows(params, results, code))
    _write_figures(folder / FIGURES, parts)
    context = _context(params, results, code, parts)
    _write_page(folder, "report", context)
    write_cost(params, folder)


def write_cost(params: Params, folder: Path) -> None:
    """Write cost.json, cost.md and cost.html: what the last run of each stage took."""
    costs = read_costs(params)
    methods = method_costs(params, costs)
    _write_json(folder / "cost.json", cost_record(costs, methods))
    _write_page(folder, "cost", {"tables": cost_tables(params, costs, methods)})


def _task_part(params: Params, task: TaskResults) -> TaskPart:
    several = len(task.data_sets) > 1
    parts = []
    for number, data_set in enumerate(task.data_sets, start=1):
        suffix = f"_{number}" if several else ""
        parts.append(_data_set_part(params, data_set, f"images_{task.name}{suffix}.png"))
    training = [curves(params, task), condition_quality(params, task)]
    return TaskPart(task.name, [picture for picture in training if picture], parts)


def _data_set_part(params: Params, data_set: DataSet, grid_name: str) -> DataSetPart:
    chosen = examples(params, data_set)
    scored = bool(data_set.ids)
    return DataSetPart(
        data_set=data_set,
        scores=score_table(params, data_set) if scored else None,
        differences=difference_table(params, data_set) if scored else None,
        notes=notes(params, data_set) if scored else [],
        grid=image_grid(data_set.task, data_set.name, chosen, grid_name) if chosen.rows else None,
    )


def _context(
    params: Params, results: list[TaskResults], code: Code, parts: list[TaskPart]
) -> dict[str, Any]:
    facts = provenance(params, results, code)
    simulated = [
        f"{task.name}: {data_set.name}"
        for task in results
        for data_set in task.data_sets
        if data_set.simulated
    ]
    return {
        "paper": PAPER,
        "tasks": parts,
        "preset": params.preset,
        "baseline": baseline(params),
        "released": released(params),
        "simulated": simulated,
        "code": code,
        "provenance": text_table("What the numbers were made with", ("What", "Value"), facts),
        "protocols": protocols_used(results),
    }


def _write_figures(folder: Path, parts: list[TaskPart]) -> None:
    pictures = [picture for part in parts for picture in part.training]
    pictures += [part.grid for task in parts for part in task.data_sets if part.grid]
    for picture in pictures:
        with replacing(folder / picture.name) as partial:
            partial.write_bytes(picture.png)
    for stale in set(folder.glob("*.png")) - {folder / picture.name for picture in pictures}:
        stale.unlink()


def _write_page(folder: Path, name: str, context: dict[str, Any]) -> None:
    for ending in ("md", "html"):
        text = _templates().get_template(f"{name}.{ending}").render(context)
        write_text(folder / f"{name}.{ending}", text)


def _write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


@functools.cache
def _templates() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = escape_markdown
    environment.filters["quote"] = quote
    environment.filters["data_uri"] = _data_uri
    return environment


def escape_markdown(text: str) -> str:
    """Return text that Markdown shows as it stands, in a table as elsewhere."""
    escaped = re.sub(r"([\\`*\[\]<>|&~$])", r"\\\1", " ".join(text.split()))
    # between letters an underscore means nothing, at the rim of a word it means emphasis
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", escaped)


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
