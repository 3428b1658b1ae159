"""Durations and memory of the last run of each stage on this machine.

They differ from run to run, so they lie beside the report, not in it. A stage that DVC restored
from its cache was not run and may have no record.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.config import Params
from pipeline.paths import COSTS
from pipeline.report.tables import NONE, Cell, Table, baseline


@dataclass(frozen=True)
class Cost:
    """Wall-clock seconds and peak main memory of one stage; None where no record was found."""

    stage: str
    wall_s: float | None
    peak_memory_mib: int | None


@dataclass(frozen=True)
class MethodCost:
    """Training of one method: mean seconds and largest memory over the seeds.

    The ratios are against the first method without adaptation; None where a record is missing.
    """

    task: str
    method: str
    wall_s: float | None
    peak_memory_mib: int | None
    wall_ratio: float | None
    memory_ratio: float | None


def stage_names(params: Params) -> list[str]:
    """Return the names of all stages before the report, as dvc.yaml makes them."""
    runs = [f"{task}-{m}-{seed}" for task in params.tasks for m in params.methods
            for seed in params.seeds]  # fmt: skip
    pretrained = [f"{task}-{seed}" for task in params.tasks for seed in params.seeds]
    labels: dict[str, Iterable[str]] = {
        "download": params.sources,
        "prepare": params.sources,
        "synthesize": params.tasks,
        "pretrain": pretrained,
        "train": runs,
        "evaluate_degraded": params.tasks,
        "evaluate": runs,
    }
    return [f"{stage}@{label}" for stage, chosen in labels.items() for label in chosen]


def read_costs(params: Params) -> list[Cost]:
    """Return the records of all stages before the report."""
    return [_read(stage) for stage in stage_names(params)]


def method_costs(params: Params, costs: list[Cost]) -> list[MethodCost]:
    """Return what the training of each method took, task by task."""
    by_stage = {cost.stage: cost for cost in costs}
    base = baseline(params)
    found = []
    for task in params.tasks:
        trained = {
            method: [by_stage[f"train@{task}-{method}-{seed}"] for seed in params.seeds]
            for method in params.methods
        }
        wall = {name: _wall_s(chosen) for name, chosen in trained.items()}
        memory = {name: _memory_mib(chosen) for name, chosen in trained.items()}
        found += [
            MethodCost(
                task=task,
                method=method,
                wall_s=wall[method],
                peak_memory_mib=memory[method],
                wall_ratio=_ratio(wall[method], wall[base] if base else None),
                memory_ratio=_ratio(memory[method], memory[base] if base else None),
            )
            for method in params.methods
        ]
    return found


def cost_record(costs: list[Cost], methods: list[MethodCost]) -> dict[str, Any]:
    """Return everything as plain values; totals are of the stages that have a record."""
    return {
        "stages": [asdict(cost) for cost in costs],
        "total_wall_s": round(sum(cost.wall_s or 0 for cost in costs), 1),
        "peak_memory_mib": _memory_mib([cost for cost in costs if cost.wall_s is not None]),
        "methods": [asdict(cost) for cost in methods],
    }


def cost_tables(params: Params, costs: list[Cost], methods: list[MethodCost]) -> list[Table]:
    """Return the table of methods and the table of stages."""
    base = baseline(params)
    record = cost_record(costs, methods)
    of_methods = [
        (f"{c.task}, {c.method}", _seconds(c.wall_s), _times(c.wall_ratio),
         _mib(c.peak_memory_mib), _times(c.memory_ratio))
        for c in methods
    ]  # fmt: skip
    of_stages = [(c.stage, _seconds(c.wall_s), _mib(c.peak_memory_mib)) for c in costs]
    known = sum(cost.wall_s is not None for cost in costs)
    total = (
        f"total of {known} of {len(costs)} stages",
        _seconds(record["total_wall_s"]),
        _mib(record["peak_memory_mib"]),
    )
    versus = f"against {base}" if base else "against no adaptation"
    return [
        _table(
            "Training, mean time and largest memory over the seeds",
            ("Task, method", "Time (s)", f"Time {versus}", "Memory (MiB)", f"Memory {versus}"),
            of_methods,
        ),
        _table("Stages", ("Stage", "Time (s)", "Memory (MiB)"), [total, *of_stages]),
    ]


def _table(caption: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    return Table(caption, columns, tuple(tuple(Cell(text) for text in row) for row in rows))


def _read(stage: str) -> Cost:
    path = COSTS / f"{stage}.json"
    if not path.is_file():
        return Cost(stage, None, None)
    record = json.loads(path.read_text(encoding="utf-8"))
    return Cost(stage, record["wall_s"], record["peak_memory_mib"])


def _wall_s(costs: list[Cost]) -> float | None:
    known = [cost.wall_s for cost in costs if cost.wall_s is not None]
    return round(sum(known) / len(known), 1) if len(known) == len(costs) else None


def _memory_mib(costs: list[Cost]) -> int | None:
    known = [cost.peak_memory_mib for cost in costs if cost.peak_memory_mib is not None]
    return max(known) if known and len(known) == len(costs) else None


def _ratio(value: float | None, base: float | None) -> float | None:
    return round(value / base, 2) if value is not None and base else None


def _seconds(value: float | None) -> str:
    return NONE if value is None else f"{value:,.1f}"


def _mib(value: int | None) -> str:
    return NONE if value is None else f"{value:,}"


def _times(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f} x"
