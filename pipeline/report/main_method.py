"""The main method against each other one: a family of tests of its own."""

from pipeline.config import Params
from pipeline.randomness import numpy_generator
from pipeline.report.collect import DataSet, Values
from pipeline.report.tables import (
    PSNR_DECIMALS,
    SSIM_DECIMALS,
    Cell,
    Table,
    baseline,
    compared_methods,
    corrected_p_values,
    difference_bounds,
    images_text,
    method_label,
    p_value_text,
)
from pipeline.statistics import PairedDifference, paired_difference


def main_method_table(params: Params, data_set: DataSet) -> Table | None:
    """Return how much higher the last adapted method scores than each other, in PSNR and SSIM.

    Scores are averaged over the seeds image by image; p-values are corrected for all tests of the
    table. Those given the truth are no competitors. None if there is no other than the baseline.
    """
    methods = compared_methods(params)
    if len(methods) < 2:
        return None
    *others, main = methods
    found = {
        (other, score): _difference(params, data_set, scores[main], scores[other])
        for other in (str(baseline(params)), *others)
        for score, scores in (("PSNR (dB)", data_set.psnr), ("SSIM", data_set.ssim))
    }
    corrected = corrected_p_values(found)
    rows = []
    for (other, score), one in found.items():
        decimals = PSNR_DECIMALS if score.startswith("PSNR") else SSIM_DECIMALS
        label, mean = method_label(params, other, data_set), f"{one.mean:+.{decimals}f}"
        texts = (label, score, mean, difference_bounds(one, decimals),
                 p_value_text(one), corrected[other, score])  # fmt: skip
        rows.append(tuple(map(Cell, texts)))
    return Table(
        caption=f"{main} minus each other method, image by image; {images_text(data_set)}."
        f" p-values are corrected for the {len(found)} tests of this table (Holm)",
        columns=("Other method", "Score", "Mean difference", "95 % interval",
                 "p (Wilcoxon, over scenes)", "p, corrected (Holm)"),
        rows=tuple(rows),
        words=2,
    )  # fmt: skip


def _difference(params: Params, data_set: DataSet, a: Values, b: Values) -> PairedDifference:
    generator = numpy_generator("report", data_set.task, data_set.name)
    samples = params.report.bootstrap_samples
    return paired_difference(
        a.mean(axis=0), b.mean(axis=0), samples, generator, groups=data_set.scenes
    )
