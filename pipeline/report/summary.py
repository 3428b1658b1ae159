"""Rows of summary.json: every number with what it takes to know what it means."""

from typing import Any

import numpy as np

from pipeline.config import Params
from pipeline.paths import DEGRADED
from pipeline.randomness import numpy_generator
from pipeline.report.collect import DataSet, Model, TaskResults, Values
from pipeline.report.provenance import Code
from pipeline.statistics import Interval, bootstrap_interval, mean_and_std

SPLIT = "test"
DECIMALS = 6

Row = dict[str, Any]


def summary_rows(params: Params, results: list[TaskResults], code: Code) -> list[Row]:
    """Return one row for each task, restorer, seed and data set that has clean images.

    Intervals hold 95 % of the bootstrap means over images, whole scenes drawn at once; they and
    the deviations are None where there is only one scene or image. Rows of the degraded input
    have no seed and no model.
    """
    return [
        _row(params, data_set, model, restorer, index, code)
        for task in results
        for data_set in task.data_sets
        if data_set.ids
        for restorer, models in [(DEGRADED, (None,)), *task.models.items()]
        for index, model in enumerate(models)
    ]


def interval(params: Params, data_set: DataSet, values: Values) -> Interval | None:
    """Return the 95 % bootstrap interval of the mean over a data set's images."""
    # the same draws for every restorer: intervals differ by the scores alone
    generator = numpy_generator("report", data_set.task, data_set.name)
    samples = params.report.bootstrap_samples
    return bootstrap_interval(values, samples, generator, groups=data_set.scenes)


def _row(
    params: Params, data_set: DataSet, model: Model | None, restorer: str, index: int, code: Code
) -> Row:
    scores = {"psnr": data_set.psnr[restorer][index], "ssim": data_set.ssim[restorer][index]}
    bounds = {name: interval(params, data_set, values) for name, values in scores.items()}
    facts = model.facts if model else {}
    return {
        "task": data_set.task,
        "method": restorer,
        "seed": model.run.seed if model else None,
        "data_set": data_set.name,
        "split": SPLIT,
        "simulated": data_set.simulated,
        "protocol": data_set.protocol,
        "images": len(data_set.ids),
        "scenes": len(set(data_set.scenes)),
        **{name: _rounded(float(np.mean(values))) for name, values in scores.items()},
        **{
            f"{name}_{side}": _rounded(found[place] if found else None)
            for name, found in bounds.items()
            for place, side in enumerate(("low", "high"))
        },
        **{
            f"{name}_std_images": _rounded(mean_and_std(values)[1])
            for name, values in scores.items()
        },
        "steps": facts.get("steps"),
        "restorer": model.restorer if model else None,
        "parameters": facts.get("parameters"),
        "precision": facts.get("precision"),
        "device": facts.get("device"),
        "commit": code.commit,
        "code_modified": code.modified,
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DECIMALS)
