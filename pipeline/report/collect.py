"""Read what trainings and evaluations left: the files that params.yaml's lists name, no others."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from pipeline.config.params import Params
from pipeline.evaluation.evaluate import MEASURED, ImageScore, read_table
from pipeline.evaluation.metrics import one_protocol
from pipeline.report.results import (
    DataSet,
    Log,
    TaskResults,
    TrainedModel,
    Values,
    released,
)
from pipeline.runtime.csv_files import read_csv
from pipeline.runtime.errors import UserError
from pipeline.runtime.paths import (
    DEGRADED,
    FACTS_FILE,
    LOG_FILE,
    MODEL_FILE,
    TABLE_FILE,
    Run,
)

SMALL = "an image is too small for it"
"""Why LPIPS may be missing though there are weights."""


def collect(params: Params) -> list[TaskResults]:
    """Return the results of every task, in the order of params.yaml.

    Raises:
        UserError: a file is missing or damaged, was made with other settings, or scores of
            different images or protocols would be compared.
    """
    return [_task(params, task) for task in params.tasks]


def read_facts(path: Path) -> dict[str, Any]:
    """Return the facts in the header of a model file, without reading its weights.

    Raises:
        UserError: the file is missing, damaged or not of this project.
    """
    _require(path)
    try:
        with safe_open(path, framework="numpy") as file:
            facts: dict[str, Any] = json.loads((file.metadata() or {})["facts"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{path}: damaged or not written by this project ({error})") from None
    return facts


def read_log(path: Path) -> Log:
    """Return the columns of a training log.

    Raises:
        UserError: the file is missing.
    """
    rows = read_csv(path)
    return {
        name: np.array([float(row[name]) if row[name] else math.nan for row in rows])
        for name in (rows[0] if rows else ())
    }


def _task(params: Params, task: str) -> TaskResults:
    runs = {DEGRADED: [Run(task, DEGRADED)]}
    runs |= {
        method: [Run(task, method, seed) for seed in params.seeds] for method in params.methods
    }
    models = {
        method: tuple(_model(params, run) for run in runs[method]) for method in params.methods
    }
    paths = {name: [run.evaluation / TABLE_FILE for run in chosen] for name, chosen in runs.items()}
    tables = {path: read_table(path) for chosen in paths.values() for path in chosen}
    _require_same_images(tables)
    by_restorer = {name: [tables[path] for path in chosen] for name, chosen in paths.items()}
    evaluated = [run for one in runs.values() for run in one]
    missing = {name: _why_missing(evaluated, name) for name in ("lpips", "niqe")}
    return TaskResults(task, _data_sets(task, by_restorer, missing), models)


def _why_missing(runs: list[Run], score: str) -> str:
    """Return why a score is missing, if it is, where all else could be scored."""
    reasons = (_facts(run).get(score, "older evaluation") for run in runs)
    return next((reason for reason in reasons if reason != MEASURED), SMALL)


def _model(params: Params, run: Run) -> TrainedModel:
    path = run.training / MODEL_FILE
    facts = read_facts(path)
    # a released model has no such fact: how long it was trained is not known
    steps = None if run.method in released(params) else params.train.steps
    expected = {"task": run.task, "method": run.method, "seed": run.seed, "steps": steps}
    for name, value in expected.items():
        if facts.get(name) != value:
            raise UserError(
                f"{path}: trained with {name} = {facts.get(name)!r}, expected {value!r};"
                " run 'dvc repro'"
            )
    log = read_log(run.training / LOG_FILE)
    return TrainedModel(run, facts, log, _facts(run))


def _facts(run: Run) -> dict[str, Any]:
    """Return what an evaluation says of itself, nothing where it is older than that file."""
    path = run.evaluation / FACTS_FILE
    if not path.is_file():
        return {}
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _require_same_images(tables: dict[Path, list[ImageScore]]) -> None:
    listed = {path: [_identity(row) for row in rows] for path, rows in tables.items()}
    first, *others = listed
    for path in others:
        if listed[path] != listed[first]:
            raise UserError(f"{path}: lists other images than {first}; run 'dvc repro'")


def _identity(row: ImageScore) -> tuple[str, str, str, bool]:
    return row.data_set, row.scene, row.id, row.psnr is None


def _data_sets(
    task: str, tables: dict[str, list[list[ImageScore]]], missing: dict[str, str]
) -> tuple[DataSet, ...]:
    rows = [row for chosen in tables.values() for table in chosen for row in table]
    names = _distinct(row.data_set for row in rows)
    return tuple(_data_set(task, name, tables, missing) for name in names)


def _data_set(
    task: str, name: str, tables: dict[str, list[list[ImageScore]]], missing: dict[str, str]
) -> DataSet:
    chosen = {
        restorer: [[row for row in table if row.data_set == name] for table in seeds]
        for restorer, seeds in tables.items()
    }
    protocols = (row.protocol for seeds in chosen.values() for table in seeds for row in table)
    protocol = one_protocol(protocols, f"task {task}, data set {name!r}")
    images = chosen[DEGRADED][0]
    scored = [row for row in images if row.psnr is not None]
    lpips = {restorer: _matrix(seeds, "lpips") for restorer, seeds in chosen.items()}
    measured = not any(np.isnan(values).any() for values in lpips.values())
    niqe = {} if scored else _niqe(chosen)
    return DataSet(
        task=task,
        name=name,
        protocol=protocol,
        ids=tuple(row.id for row in scored),
        scenes=tuple(row.scene for row in scored),
        domain=images[0].domain,
        simulated=images[0].degraded_by == "here",
        seen=images[0].seen,
        unscored=len(images) - len(scored),
        psnr={restorer: _matrix(seeds, "psnr") for restorer, seeds in chosen.items()},
        ssim={restorer: _matrix(seeds, "ssim") for restorer, seeds in chosen.items()},
        lpips=lpips if measured else {},
        no_lpips="" if measured else missing["lpips"],
        niqe=niqe,
        no_niqe="" if scored or niqe else missing["niqe"],
    )


def _niqe(chosen: dict[str, list[list[ImageScore]]]) -> dict[str, Values]:
    """Return NIQE of each restorer, of the images that all have it of; empty if there is none."""
    found = {restorer: np.array([[row.niqe for row in table] for table in seeds], np.float64)
             for restorer, seeds in chosen.items()}  # fmt: skip
    everywhere = ~np.isnan(np.concatenate(list(found.values()))).any(axis=0)
    return (
        {name: values[:, everywhere] for name, values in found.items()} if everywhere.any() else {}
    )


def _matrix(seeds: list[list[ImageScore]], score: str) -> Values:
    rows = [[getattr(row, score) for row in table if row.psnr is not None] for table in seeds]
    return np.array(rows, dtype=np.float64)  # None becomes NaN


def _distinct(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _require(path: Path) -> None:
    if not path.is_file():
        raise UserError(f"{path}: not found; 'dvc repro' or 'dvc checkout' makes it")
