"""Durations and memory of the last run of each stage on this machine.

They differ from run to run, so they lie beside the report, not in it. A stage that DVC restored
from its cache was not run and may have no record.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.config.params import Params
from pipeline.report.collect import read_facts, read_log
from pipeline.report.results import released, updates
from pipeline.report.tables.scores import NONE, Cell, Table, baseline
from pipeline.runtime.paths import COSTS, MODEL_FILE, Run

GPU_MEMORY = "GPU memory (MiB)"


@dataclass(frozen=True)
class StageCost:
    """Wall-clock seconds and peak memory of one stage; None where no record was found.

    ``peak_gpu_memory_mib`` is what tensors held on one GPU at most, None where none was used.
    """

    stage: str
    wall_s: float | None
    peak_memory_mib: int | None
    peak_gpu_memory_mib: int | None


@dataclass(frozen=True)
class MethodCost:
    """Training of one method: mean seconds and largest memory over the seeds.

    ``updates`` are those of the stage: fewer where a pretraining is shared than from scratch, which
    a ratio of whole times does not say. ``step_s`` is the median of seconds a step and
    ``waiting_share`` the mean share of the time waiting for data, 0 to 1, over the logged intervals
    of all seeds. The ratios are against the first method without adaptation; None where a record is
    missing. ``extra_parameters`` are of the networks that are thrown away after training.
    """

    task: str
    method: str
    updates: int
    step_s: float | None
    step_ratio: float | None
    waiting_share: float | None
    wall_s: float | None
    wall_ratio: float | None
    peak_memory_mib: int | None
    memory_ratio: float | None
    peak_gpu_memory_mib: int | None
    extra_parameters: int | None


@dataclass(frozen=True)
class Timing:
    """Median seconds a step and mean share of waiting for data; None where not recorded."""

    step_s: float | None
    waiting_share: float | None


def stage_names() -> list[str]:
    """Return the names of all stages before the report, as dvc.yaml makes them."""
    from dvc.repo import Repo

    names = [stage.addressing for stage in Repo(uninitialized=True).index.stages]
    return [name for name in names if name != "report"]


def read_costs() -> list[StageCost]:
    """Return the records of all stages before the report."""
    return [_read(stage) for stage in stage_names()]


def method_costs(params: Params) -> list[MethodCost]:
    """Return what the training of each method trained here took, task by task."""
    base = baseline(params)
    methods = [name for name in params.methods if name not in released(params)]
    found = []
    for task in params.tasks:
        trained = {
            method: [_read(f"train@{task}-{method}-{seed}") for seed in params.seeds]
            for method in methods
        }
        timings = {
            method: _timing([Run(task, method, seed) for seed in params.seeds])
            for method in methods
        }
        base_step_s = timings[base].step_s if base else None
        wall = {name: _wall_s(chosen) for name, chosen in trained.items()}
        memory = {
            name: _largest([c.peak_memory_mib for c in chosen]) for name, chosen in trained.items()
        }
        found += [
            MethodCost(
                task=task,
                method=method,
                updates=updates(params, method),
                step_s=timings[method].step_s,
                step_ratio=_ratio(timings[method].step_s, base_step_s),
                waiting_share=timings[method].waiting_share,
                wall_s=wall[method],
                wall_ratio=_ratio(wall[method], wall[base] if base else None),
                peak_memory_mib=memory[method],
                memory_ratio=_ratio(memory[method], memory[base] if base else None),
                peak_gpu_memory_mib=_largest([c.peak_gpu_memory_mib for c in trained[method]]),
                extra_parameters=_extra_parameters(Run(task, method, params.seeds[0])),
            )
            for method in methods
        ]
    return found


def cost_record(costs: list[StageCost], methods: list[MethodCost]) -> dict[str, Any]:
    """Return everything as plain values; totals are of the stages that have a record."""
    known = [cost for cost in costs if cost.wall_s is not None]
    on_gpu = [c.peak_gpu_memory_mib for c in known if c.peak_gpu_memory_mib is not None]
    return {
        "stages": [asdict(cost) for cost in costs],
        "total_wall_s": round(sum(cost.wall_s or 0 for cost in costs), 1),
        "peak_memory_mib": _largest([c.peak_memory_mib for c in known]),
        "peak_gpu_memory_mib": max(on_gpu, default=None),
        "methods": [asdict(cost) for cost in methods],
    }


def cost_tables(params: Params, costs: list[StageCost], methods: list[MethodCost]) -> list[Table]:
    """Return the table of methods and the table of stages; of GPUs only where one was used."""
    base = baseline(params)
    record = cost_record(costs, methods)
    gpu = record["peak_gpu_memory_mib"] is not None

    def on_gpu(text: str) -> tuple[str, ...]:
        return (text,) if gpu else ()

    of_methods = [
        (f"{c.task}, {c.method}", _count(c.updates), _step_seconds(c.step_s), _times(c.step_ratio),
         _percent(c.waiting_share), _seconds(c.wall_s), _times(c.wall_ratio),
         _count(c.peak_memory_mib), _times(c.memory_ratio),
         *on_gpu(_count(c.peak_gpu_memory_mib)), _count(c.extra_parameters))
        for c in methods
    ]  # fmt: skip
    of_stages = [
        (c.stage, _seconds(c.wall_s), _count(c.peak_memory_mib),
         *on_gpu(_count(c.peak_gpu_memory_mib)))
        for c in costs
    ]  # fmt: skip
    known = sum(cost.wall_s is not None for cost in costs)
    total = (
        f"total of {known} of {len(costs)} stages",
        _seconds(record["total_wall_s"]),
        _count(record["peak_memory_mib"]),
        *on_gpu(_count(record["peak_gpu_memory_mib"])),
    )
    versus = f"against {base}" if base else "against no adaptation"
    return [
        _table(
            "Training, over the seeds: median seconds a step, mean waiting for data, mean time of"
            " the whole stage, largest memory",
            (
                "Task, method",
                "Updates",
                "Seconds a step",
                f"Step {versus}",
                "Waiting for data",
                "Time (s)",
                f"Time {versus}",
                "Memory (MiB)",
                f"Memory {versus}",
                *on_gpu(GPU_MEMORY),
                "Parameters thrown away",
            ),
            of_methods,
        ),
        _table(
            "Stages",
            ("Stage", "Time (s)", "Memory (MiB)", *on_gpu(GPU_MEMORY)),
            [total, *of_stages],
        ),
    ]


def _table(caption: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    return Table(caption, columns, tuple(tuple(Cell(text) for text in row) for row in rows))


def _read(stage: str) -> StageCost:
    path = COSTS / f"{stage}.json"
    if not path.is_file():
        return StageCost(stage, None, None, None)
    record = json.loads(path.read_text(encoding="utf-8"))
    on_gpu = record.get("peak_gpu_memory_mib")  # older records have none
    return StageCost(stage, record["wall_s"], record["peak_memory_mib"], on_gpu)


def _extra_parameters(run: Run) -> int | None:
    path = run.training / MODEL_FILE
    return read_facts(path).get("extra_parameters") if path.is_file() else None


def _timing(runs: list[Run]) -> Timing:
    found = [read_log(run.timings) for run in runs if run.timings.is_file()]
    if len(found) < len(runs) or not all("seconds_per_step" in log for log in found):
        return Timing(None, None)
    steps = np.concatenate([log["seconds_per_step"] for log in found])
    waiting = np.concatenate([log["waiting_share"] for log in found])
    return Timing(round(float(np.median(steps)), 4), round(float(waiting.mean()), 4))


def _wall_s(costs: list[StageCost]) -> float | None:
    known = [cost.wall_s for cost in costs if cost.wall_s is not None]
    return round(sum(known) / len(known), 1) if len(known) == len(costs) else None


def _largest(values: list[int | None]) -> int | None:
    """Return the largest value, None unless all are known."""
    known = [value for value in values if value is not None]
    return max(known) if known and len(known) == len(values) else None


def _ratio(value: float | None, base: float | None) -> float | None:
    return round(value / base, 2) if value is not None and base else None


def _seconds(value: float | None) -> str:
    return NONE if value is None else f"{value:,.1f}"


def _step_seconds(value: float | None) -> str:
    return NONE if value is None else f"{value:,.4f}"


def _percent(value: float | None) -> str:
    return NONE if value is None else f"{100 * value:.1f} %"


def _count(value: int | None) -> str:
    return NONE if value is None else f"{value:,}"


def _times(value: float | None) -> str:
    return NONE if value is None else f"{value:.2f} x"
