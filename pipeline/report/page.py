"""The report as Markdown and HTML, with its figures and the cost page beside it."""

import base64
import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.config.params import PARAMS_FILE, Params
from pipeline.report.collect import collect
from pipeline.report.cost import cost_record, cost_tables, method_costs, read_costs
from pipeline.report.examples.choice import examples
from pipeline.report.examples.failures import failure_examples, failures_table, harm_table
from pipeline.report.examples.grids import image_grid
from pipeline.report.examples.viewer import Comparison, comparisons
from pipeline.report.figures.conditions import condition_quality
from pipeline.report.figures.curves import curves
from pipeline.report.figures.drawing import Drawing
from pipeline.report.figures.progress import progress
from pipeline.report.figures.scaling import scaling
from pipeline.report.figures.timings import timing_curves
from pipeline.report.findings import findings
from pipeline.report.notes import notes
from pipeline.report.provenance import (
    Code,
    code_state,
    protocols_used,
    provenance,
    rebuild_command,
)
from pipeline.report.results import DataSet, TaskResults, released
from pipeline.report.summary import summary_rows
from pipeline.report.tables.differences import (
    Family,
    all_tests,
    difference_table,
    main_method_table,
)
from pipeline.report.tables.gains import gain_table
from pipeline.report.tables.headline import (
    ablation_table,
    data_sets_table,
    headline_table,
    published_table,
)
from pipeline.report.tables.per_image import per_image_csv
from pipeline.report.tables.published import PAPER
from pipeline.report.tables.restorers import commands_table, restorer_table
from pipeline.report.tables.scores import (
    Table,
    baseline,
    niqe_table,
    score_table,
    text_table,
)
from pipeline.report.tables.writing import escape_markdown, to_csv, to_latex, to_markdown
from pipeline.runtime.files import replacing, write_text
from pipeline.runtime.paths import PER_IMAGE_FILE, TABLES

TEMPLATES = Path(__file__).parent / "templates"
FIGURES = "figures"
WITH_COST = "report_with_cost"


@dataclass(frozen=True)
class DataSetPart:
    """What is shown of one data set; without clean images there is at most a table of NIQE.

    ``tables`` maps a name, which a file may bear, to a table: scores, differences and so on.
    """

    data_set: DataSet
    suffix: str
    tables: dict[str, Table]
    notes: list[str]
    grid: Drawing | None
    comparisons: list[Comparison]
    failures: list[Comparison]
    failures_rule: str


@dataclass(frozen=True)
class TaskPart:
    """What is shown of one task; no pictures of training if nothing was trained here."""

    name: str
    training: list[Drawing]
    data_sets: list[DataSetPart]
    across: Table | None
    published: Table | None


def write_report(params: Params, folder: Path) -> None:
    """Write summary.json, report.md, report.html, tables, figures and the cost files.

    Reads below the current folder what params.yaml's lists name.

    Raises:
        UserError: see ``collect`` and ``examples``.
    """
    results = collect(params)
    code = code_state()
    family = all_tests(params, results)
    parts = [_task_part(params, task, family) for task in results]
    context = _context(params, results, code, parts)
    context["findings"] = findings(params, results, family)
    _write_json(folder / "summary.json", summary_rows(params, results, code))
    _write_figures(folder / FIGURES, parts, context["scaling"])
    beside = {PER_IMAGE_FILE: per_image_csv(params, results)}
    if code.params_modified:
        beside[PARAMS_FILE.name] = PARAMS_FILE.read_text(encoding="utf-8")
    _write_tables(folder / TABLES, _all_tables(context), beside)
    for ending in ("md", "html"):
        _write_page(folder / f"report.{ending}", f"report.{ending}", context)
    cost = write_cost(params, folder)
    # a page of its own: it differs from run to run, the report does not
    timings = [picture for task in params.tasks if (picture := timing_curves(params, task))]
    context |= {"cost": cost, "timings": timings}
    _write_page(folder / f"{WITH_COST}.html", "report.html", context)


def write_cost(params: Params, folder: Path) -> list[Table]:
    """Write cost.json and cost.md, what the last run of each stage took; return their tables."""
    costs, methods = read_costs(), method_costs(params)
    tables = cost_tables(params, costs, methods)
    _write_json(folder / "cost.json", cost_record(costs, methods))
    _write_page(folder / "cost.md", "cost.md", {"tables": tables})
    return tables


def _task_part(params: Params, task: TaskResults, family: Family) -> TaskPart:
    several = len(task.data_sets) > 1
    parts = []
    for number, data_set in enumerate(task.data_sets, start=1):
        suffix = f"_{number}" if several else ""
        parts.append(_data_set_part(params, data_set, family, suffix))
    training = [curves(params, task), progress(params, task), condition_quality(params, task)]
    pictures = [picture for picture in training if picture]
    scored = any(part.data_set.ids for part in parts)
    published = published_table(task.name) if scored else None
    return TaskPart(task.name, pictures, parts, data_sets_table(params, task), published)


def _data_set_part(params: Params, data_set: DataSet, family: Family, suffix: str) -> DataSetPart:
    chosen = examples(params, data_set)
    scored = bool(data_set.ids)
    made = {
        "scores": score_table(params, data_set),
        "gains": gain_table(params, data_set),
        "ablation": ablation_table(params, data_set),
        "differences": difference_table(params, data_set, family),
        "main_method": main_method_table(params, data_set, family),
        "harm": harm_table(params, data_set),
        "failures": failures_table(params, data_set),
    } if scored else {}  # fmt: skip
    blind = {"niqe": niqe_table(params, data_set)} if data_set.niqe else {}
    failed = failure_examples(params, data_set)
    grid_name = f"images_{data_set.task}{suffix}.png"
    return DataSetPart(
        data_set=data_set,
        suffix=suffix,
        tables={name: table for name, table in (made | blind).items() if table},
        notes=notes(params, data_set) if scored else [],
        grid=image_grid(data_set.task, data_set.name, chosen, grid_name) if chosen.rows else None,
        comparisons=comparisons(params, chosen),
        failures=comparisons(params, failed),
        failures_rule=failed.rule,
    )


def _all_tables(context: dict[str, Any]) -> dict[str, Table]:
    """Return every table of the report by the name of its files."""
    found = {name: context[name] for name in ("headline", "provenance", "restorers", "commands")}
    for task in context["tasks"]:
        found[f"published_{task.name}"] = task.published
        found[f"data_sets_{task.name}"] = task.across
        for part in task.data_sets:
            for name, table in part.tables.items():
                found[f"{name}_{task.name}{part.suffix}"] = table
    return {name: table for name, table in found.items() if table}


def _context(
    params: Params, results: list[TaskResults], code: Code, parts: list[TaskPart]
) -> dict[str, Any]:
    facts = provenance(params, results, code)
    simulated = [
        f"{task.name}: {data_set.name}"
        for task in results
        for data_set in task.data_sets
        if data_set.simulated and data_set.domain == "real"
    ]
    return {
        "paper": PAPER,
        "tasks": parts,
        "preset": params.preset,
        "headline": headline_table(params, results),
        "restorers": restorer_table(params, results),
        "scaling": scaling(params, results),
        "commands": commands_table(params, results, code),
        "cost": [],
        "timings": [],
        "baseline": baseline(params),
        "released": released(params),
        "simulated": simulated,
        "code": code,
        "rebuild": rebuild_command(code),
        "provenance": text_table("What the numbers were made with", ("What", "Value"), facts),
        "protocols": protocols_used(results),
    }


def _write_figures(folder: Path, parts: list[TaskPart], scaling: Drawing | None) -> None:
    pictures = [scaling] if scaling else []
    pictures += [picture for part in parts for picture in part.training]
    pictures += [part.grid for task in parts for part in task.data_sets if part.grid]
    for picture in pictures:
        with replacing(folder / picture.name) as partial:
            partial.write_bytes(picture.png)


def _write_tables(folder: Path, tables: dict[str, Table], beside: dict[str, str]) -> None:
    texts = dict(beside)
    for name, table in tables.items():
        texts[f"{name}.csv"] = to_csv(table)
        texts[f"{name}.tex"] = to_latex(table, name)
        texts[f"{name}.md"] = to_markdown(table)
    for name, text in texts.items():
        write_text(folder / name, text)


def _write_page(path: Path, template: str, context: dict[str, Any]) -> None:
    write_text(path, templates().get_template(template).render(context))


def _write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


@functools.cache
def templates() -> Environment:
    """Return the pages' templates, with the filters that they use."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["md"] = escape_markdown
    environment.filters["table_md"] = to_markdown
    environment.filters["quote"] = quote
    environment.filters["data_uri"] = _data_uri
    return environment


def _data_uri(data: bytes, form: str) -> str:
    return f"data:image/{form};base64,{base64.b64encode(data).decode()}"
