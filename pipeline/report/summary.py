"""Rows of summary.json: every number with what it takes to know what it means."""

from typing import Any

import numpy as np

from pipeline.config.params import Params
from pipeline.randomness import numpy_generator
from pipeline.report.provenance import Code
from pipeline.report.results import DataSet, TaskResults, TrainedModel, Values, released
from pipeline.report.statistics import Interval, bootstrap_interval, mean_and_std
from pipeline.runtime.paths import DEGRADED

SPLIT = "test"
DECIMALS = 6
SAID = ("", "_low", "_high", "_std_images", "_mean_seeds", "_std_seeds")
"""What is said of a score, after its name."""

Row = dict[str, Any]


def summary_rows(params: Params, results: list[TaskResults], code: Code) -> list[Row]:
    """Return one row for each task, restorer, seed and data set that has clean images.

    Of each score: the mean over the images, the interval that holds 95 % of its bootstrap means
    (whole scenes drawn at once), and the deviation over the images, all of the row's own seed; then
    mean and deviation of the means over all seeds, the same in each of their rows. Intervals and
    deviations are None where there is only one scene, image or seed. LPIPS is None where it was not
    measured, and ``lpips_missing`` says why. Rows of the degraded input have no seed and no model.
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


def over_seeds(params: Params, restorer: str, values: Values) -> tuple[float, float | None]:
    """Return mean and deviation of the seeds' means of scores (seeds, images)."""
    means = values.mean(axis=1)
    # released weights are the same for every seed: no spread
    return mean_and_std(means[:1] if restorer in released(params) else means)


def _row(
    params: Params,
    data_set: DataSet,
    model: TrainedModel | None,
    restorer: str,
    index: int,
    code: Code,
) -> Row:
    facts, evaluation = (model.facts, model.evaluation) if model else ({}, {})
    return {
        "task": data_set.task,
        "method": restorer,
        "seed": model.run.seed if model else None,
        "data_set": data_set.name,
        "split": SPLIT,
        "simulated": data_set.simulated,
        "domain": data_set.domain,
        "seen": data_set.seen,
        "protocol": data_set.protocol,
        "images": len(data_set.ids),
        "scenes": len(set(data_set.scenes)),
        **_score(params, data_set, restorer, "psnr", index),
        **_score(params, data_set, restorer, "ssim", index),
        **_score(params, data_set, restorer, "lpips", index),
        "lpips_missing": data_set.no_lpips or None,
        "steps": facts.get("steps"),
        "restorer": model.restorer if model else None,
        "parameters": facts.get("parameters"),
        "precision": facts.get("precision"),
        "device": facts.get("device"),
        "evaluation_precision": evaluation.get("precision"),
        "evaluation_device": evaluation.get("device"),
        "commit": code.commit,
        "code_modified": code.modified,
    }


def _score(
    params: Params, data_set: DataSet, restorer: str, name: str, index: int
) -> dict[str, float | None]:
    """Return what a row says of one score."""
    values: Values | None = getattr(data_set, name).get(restorer)
    if values is None:
        found: list[float | None] = [None] * len(SAID)
    else:
        low, high = interval(params, data_set, values[index]) or (None, None)
        mean, over_images = float(np.mean(values[index])), mean_and_std(values[index])[1]
        found = [mean, low, high, over_images, *over_seeds(params, restorer, values)]
    return {name + part: _rounded(value) for part, value in zip(SAID, found, strict=True)}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, DECIMALS)
