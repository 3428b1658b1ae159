"""Methods against each other on the same images, and the one family that all their tests form."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from pipeline.config.params import Params
from pipeline.randomness import numpy_generator
from pipeline.report.results import DataSet, TaskResults, released
from pipeline.report.statistics import FEWEST_PAIRS, PairedDifference, holm, paired_difference
from pipeline.report.tables.scores import (
    NONE,
    PSNR_DECIMALS,
    SSIM_DECIMALS,
    Cell,
    Table,
    baseline,
    compared_methods,
    count_text,
    images_text,
    interval_cell,
    method_label,
)

PSNR, SSIM = "psnr", "ssim"

Key = TypeVar("Key")


@dataclass(frozen=True)
class Hypothesis:
    """That on one data set the ``score`` of ``method`` is no other than that of ``other``."""

    task: str
    data_set: str
    method: str
    other: str
    score: str


@dataclass(frozen=True)
class Tested:
    """A difference, and its p-value corrected for all tests of its family; None without one."""

    difference: PairedDifference
    corrected: float | None


Family = dict[Hypothesis, Tested]


def all_tests(params: Params, results: list[TaskResults]) -> Family:
    """Return every test of the report, each once, corrected for their number.

    They are one family, of all data sets of all tasks: whoever reads the report looks for the
    small p-values in all of it.
    """
    found = {
        hypothesis: _difference(params, data_set, hypothesis)
        for task in results
        for data_set in task.data_sets
        if data_set.ids
        for hypothesis in (
            *against_baseline(params, data_set), *against_others(params, data_set),
        )
    }  # fmt: skip
    return corrected(found)


def corrected(differences: Mapping[Key, PairedDifference]) -> dict[Key, Tested]:
    """Return the differences with p-values corrected for their number by Holm's method."""
    if not differences:
        return {}
    # a test without p-value counts too: how many are compared is not for the data to decide
    p_values = holm([1.0 if one.p_value is None else one.p_value for one in differences.values()])
    return {
        key: Tested(found, None if found.p_value is None else float(p_value))
        for (key, found), p_value in zip(differences.items(), p_values, strict=True)
    }


def against_baseline(params: Params, data_set: DataSet) -> list[Hypothesis]:
    """Return what is tested of each method against the baseline, in PSNR."""
    base = baseline(params)
    return [
        Hypothesis(data_set.task, data_set.name, method, str(base), PSNR)
        for method in compared_methods(params)
    ]


def against_others(params: Params, data_set: DataSet) -> list[Hypothesis]:
    """Return what is tested of the main method, the last adapted one, in PSNR and SSIM.

    Nothing if there is no other than the baseline; those given the truth are no competitors.
    """
    methods = compared_methods(params)
    if len(methods) < 2:
        return []
    *others, main = methods
    return [
        Hypothesis(data_set.task, data_set.name, main, other, score)
        for other in (str(baseline(params)), *others)
        for score in (PSNR, SSIM)
    ]


def difference_table(params: Params, data_set: DataSet, family: Family) -> Table | None:
    """Return how much higher each method scores than the baseline on the same images.

    Scores are averaged over the seeds image by image. None where there is nothing to compare.
    """
    hypotheses = against_baseline(params, data_set)
    if not hypotheses:
        return None
    taken_over = ", ".join(released(params))
    trained = f"each (but for {taken_over})" if taken_over else "each"
    return Table(
        caption=f"PSNR minus that of {baseline(params)}, image by image, after"
        f" {params.train.steps:,} restorer updates {trained}; {images_text(data_set)}."
        f" {family_text(family)}",
        columns=("Method", "Mean difference (dB)", *TESTED),
        rows=tuple(
            (
                Cell(method_label(params, hypothesis.method, data_set)),
                *tested_cells(hypothesis, family),
            )
            for hypothesis in hypotheses
        ),
    )


def main_method_table(params: Params, data_set: DataSet, family: Family) -> Table | None:
    """Return how much higher the main method scores than each other, in PSNR and SSIM.

    Scores are averaged over the seeds image by image. None if there is no other than the baseline.
    """
    hypotheses = against_others(params, data_set)
    if not hypotheses:
        return None
    return Table(
        caption=f"{hypotheses[0].method} minus each other method, image by image;"
        f" {images_text(data_set)}. {family_text(family)}",
        columns=("Other method", "Score", "Mean difference", *TESTED),
        rows=tuple(
            (
                Cell(method_label(params, hypothesis.other, data_set)),
                Cell("PSNR (dB)" if hypothesis.score == PSNR else "SSIM"),
                *tested_cells(hypothesis, family),
            )
            for hypothesis in hypotheses
        ),
        words=2,
    )


TESTED = ("95 % interval", "p (Wilcoxon, over scenes)", "p, corrected (Holm)")
"""Columns beside a mean difference."""


def tested_cells(hypothesis: Hypothesis, family: Family) -> tuple[Cell, ...]:
    """Return mean difference, interval, p-value and corrected p-value."""
    found = family[hypothesis].difference
    decimals = PSNR_DECIMALS if hypothesis.score == PSNR else SSIM_DECIMALS
    return (
        Cell(f"{found.mean:+.{decimals}f}"),
        difference_bounds(found, decimals),
        Cell(p_value_text(found)),
        Cell(corrected_text(family[hypothesis])),
    )


def family_text(family: Family) -> str:
    """Return the sentence on what the p-values are corrected for."""
    if len(family) == 1:
        return "It is the only test of this report: its p-value needs no correction"
    return (
        f"The last column corrects for all {count_text(len(family), 'test')} of this report, those"
        " of every task, data set and method"
    )


def difference_bounds(found: PairedDifference, decimals: int = PSNR_DECIMALS) -> Cell:
    """Return the interval of a difference, of PSNR unless other decimals are asked for."""
    bounds = None if found.low is None or found.high is None else (found.low, found.high)
    return interval_cell(bounds, decimals, "+")


def p_value_text(found: PairedDifference) -> str:
    """Return the p-value of a difference, or why there is none."""
    if found.p_value is not None:
        return f"{found.p_value:.3g}"
    few = found.scenes is None or found.scenes < FEWEST_PAIRS
    reason = f"fewer than {FEWEST_PAIRS} scenes"
    return f"{NONE} ({reason})" if few else f"{NONE} ({reason} with a difference)"


def corrected_text(tested: Tested) -> str:
    """Return the corrected p-value."""
    return NONE if tested.corrected is None else f"{tested.corrected:.3g}"


def _difference(params: Params, data_set: DataSet, hypothesis: Hypothesis) -> PairedDifference:
    scores = data_set.psnr if hypothesis.score == PSNR else data_set.ssim
    return paired_difference(
        scores[hypothesis.method].mean(axis=0),
        scores[hypothesis.other].mean(axis=0),
        params.report.bootstrap_samples,
        numpy_generator("report", data_set.task, data_set.name),
        groups=data_set.scenes,
    )
