"""Scores and paired differences as people read them."""

import itertools
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pipeline.config import Params
from pipeline.paths import DEGRADED
from pipeline.randomness import numpy_generator
from pipeline.report.collect import (
    DataSet,
    Values,
    bounds,
    of_real_domain,
    real_domain,
    released,
)
from pipeline.report.summary import interval, over_seeds
from pipeline.statistics import (
    FEWEST_PAIRS,
    PairedDifference,
    holm,
    paired_difference,
)

Test = TypeVar("Test", bound=Hashable)
"""What a test of a family is named after."""

NONE = "-"
NOT_MEASURED = "not measured"
PSNR_DECIMALS = 2
SSIM_DECIMALS = 4
FEW_SCENES = 10
"""Below it the bounds of a bootstrap interval are too narrow, see pipeline/statistics.py."""


MANNERS = {"ap_bsn": "in the manner of AP-BSN"}
"""What is said beside the name of a method, by its adaptation."""


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    ``best`` marks the best score of its column, ``theirs`` a number that was not measured here.
    """

    text: str
    best: bool = False
    theirs: bool = False


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows.

    ``numeric`` sets the columns after the first ``words`` flush right.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numeric: bool = True
    words: int = 1

    def span(self, index: int) -> int:
        """Return how many rows from here on bear the same name, 0 if the row above does too."""
        names = [row[0].text for row in self.rows]
        if index and names[index - 1] == names[index]:
            return 0
        same = itertools.takewhile(lambda name: name == names[index], names[index:])
        return len(list(same))


def text_table(caption: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Return a table of words."""
    cells = tuple(tuple(Cell(text) for text in row) for row in rows)
    return Table(caption, tuple(columns), cells, numeric=False)


def restorer_label(restorer: str) -> str:
    """Return how a restorer is named in tables and figures."""
    return "degraded input" if restorer == DEGRADED else restorer


def method_label(params: Params, restorer: str, *data_sets: DataSet) -> str:
    """Return how a restorer is named in tables of scores, with what its own name does not say.

    The truth bounds nothing but on the domain that it is of: on all ``data_sets`` of the table.
    """
    method = params.methods.get(restorer)
    said = MANNERS.get(method.adaptation) if method else None
    if restorer in bounds(params):
        domain = real_domain(params, data_sets[0].task)
        at_home = all(of_real_domain(params, data_set) for data_set in data_sets)
        said = "upper bound" if at_home else f"trained on the truth of {domain}"
    return f"{restorer_label(restorer)} ({said})" if said else restorer_label(restorer)


def baseline(params: Params) -> str | None:
    """Return the first method without adaptation, against which the others are held."""
    plain = (name for name, method in params.methods.items() if method.adaptation == "none")
    return next(plain, None)


def compared_methods(params: Params) -> list[str]:
    """Return the methods that are held against the baseline; those given the truth are not."""
    base = baseline(params)
    apart = {base, *bounds(params)}
    return [name for name in params.methods if name not in apart] if base else []


def score_table(params: Params, data_set: DataSet) -> Table:
    """Return PSNR and SSIM of the degraded input and every method, the best marked.

    With several seeds a score is the mean of the seeds' means and their standard deviation; the
    interval is of the images' scores averaged over the seeds.
    """
    restorers = [DEGRADED, *params.methods]
    cells = score_cells(params, data_set, restorers)
    spread = f", mean ± std over {len(params.seeds)} seeds" if len(params.seeds) > 1 else ""
    return Table(
        caption=f"{data_set.name}: {images_text(data_set)}, protocol {data_set.protocol}",
        columns=(
            "Restorer",
            f"PSNR (dB){spread}",
            "95 % interval of PSNR",
            f"SSIM{spread}",
            "95 % interval of SSIM",
            "LPIPS, lower is better",
            "95 % interval of LPIPS",
        ),
        rows=tuple(
            (
                Cell(method_label(params, name, data_set)),
                *cells["psnr"][name],
                *cells["ssim"][name],
                *cells["lpips"][name],
            )
            for name in restorers
        ),
    )


def score_cells(
    params: Params, data_set: DataSet, restorers: list[str]
) -> dict[str, dict[str, tuple[Cell, Cell]]]:
    """Return for psnr, ssim and lpips, and each restorer, the cells of score and interval."""
    missing = dict.fromkeys(restorers, (Cell(NOT_MEASURED), Cell(NONE)))
    return {
        "psnr": _score_cells(params, data_set, data_set.psnr, restorers, PSNR_DECIMALS),
        "ssim": _score_cells(params, data_set, data_set.ssim, restorers, SSIM_DECIMALS),
        "lpips": _score_cells(params, data_set, data_set.lpips, restorers, SSIM_DECIMALS, min)
        if data_set.lpips
        else missing,
    }


def difference_table(params: Params, data_set: DataSet) -> Table | None:
    """Return how much higher each method scores than the baseline on the same images.

    Scores are averaged over the seeds image by image. With several methods their p-values stand
    also corrected. None where there is nothing to compare.
    """
    base = baseline(params)
    others = compared_methods(params)
    if base is None or not others:
        return None
    differences = {name: _difference(params, data_set, name, base) for name in others}
    rows: list[tuple[str, ...]] = [
        (
            method_label(params, name, data_set),
            f"{found.mean:+.{PSNR_DECIMALS}f}",
            difference_bounds(found),
            p_value_text(found),
        )
        for name, found in differences.items()
    ]
    columns = ["Method", "Mean difference (dB)", "95 % interval", "p (Wilcoxon, over scenes)"]
    if len(others) > 1:
        corrected = corrected_p_values(differences)
        columns.append("p, corrected (Holm)")
        rows = [(*row, corrected[name]) for row, name in zip(rows, others, strict=True)]
    family = f". p-values are corrected for these {len(others)} tests" if len(others) > 1 else ""
    taken_over = ", ".join(released(params))
    trained = f"each (but for {taken_over})" if taken_over else "each"
    return Table(
        caption=f"PSNR minus that of {base}, image by image, after {params.train.steps:,} restorer"
        f" updates {trained}; {images_text(data_set)}{family}",
        columns=tuple(columns),
        rows=tuple(tuple(Cell(text) for text in row) for row in rows),
    )


def images_text(data_set: DataSet) -> str:
    """Return how many images and scenes were scored."""
    scenes = count_text(len(set(data_set.scenes)), "scene")
    return f"{count_text(len(data_set.ids), 'image')} of {scenes}"


def _difference(params: Params, data_set: DataSet, method: str, base: str) -> PairedDifference:
    return paired_difference(
        data_set.psnr[method].mean(axis=0),
        data_set.psnr[base].mean(axis=0),
        params.report.bootstrap_samples,
        numpy_generator("report", data_set.task, data_set.name),
        groups=data_set.scenes,
    )


def corrected_p_values(differences: dict[Test, PairedDifference]) -> dict[Test, str]:
    """Return the p-values of a family of tests, corrected for their number with Holm's method."""
    # a test without p-value counts too: how many are compared is not for the data to decide
    p_values = [1.0 if found.p_value is None else found.p_value for found in differences.values()]
    corrected = dict(zip(differences, holm(p_values), strict=True))
    return {
        name: NONE if found.p_value is None else f"{corrected[name]:.3g}"
        for name, found in differences.items()
    }


def _score_cells(
    params: Params,
    data_set: DataSet,
    scores: dict[str, Values],
    restorers: list[str],
    decimals: int,
    best_of: Callable[..., str] = max,
) -> dict[str, tuple[Cell, Cell]]:
    texts, means = {}, {}
    for name in restorers:
        mean, deviation = over_seeds(params, name, scores[name])
        means[name] = f"{mean:.{decimals}f}"
        texts[name] = (
            means[name] if deviation is None else f"{mean:.{decimals}f} ± {deviation:.{decimals}f}"
        )
    best = best_of((mean for name, mean in means.items() if name not in bounds(params)), key=float)
    return {
        name: (
            Cell(texts[name], best=means[name] == best and name not in bounds(params)),
            Cell(_bounds(interval(params, data_set, scores[name].mean(axis=0)), decimals)),
        )
        for name in restorers
    }


def difference_bounds(found: PairedDifference, decimals: int = PSNR_DECIMALS) -> str:
    """Return the interval of a difference, of PSNR unless other decimals are asked for."""
    bounds = None if found.low is None or found.high is None else (found.low, found.high)
    return _bounds(bounds, decimals, "+")


def _bounds(bounds: tuple[float, float] | None, decimals: int, sign: str = "") -> str:
    if bounds is None:
        return f"{NONE} (one scene)"
    return f"{bounds[0]:{sign}.{decimals}f} to {bounds[1]:{sign}.{decimals}f}"


def p_value_text(found: PairedDifference) -> str:
    """Return the p-value of a difference, or why there is none."""
    if found.p_value is not None:
        return f"{found.p_value:.3g}"
    few = found.scenes is None or found.scenes < FEWEST_PAIRS
    reason = f"fewer than {FEWEST_PAIRS} scenes"
    return f"{NONE} ({reason})" if few else f"{NONE} ({reason} with a difference)"


def count_text(number: int, noun: str) -> str:
    """Return a number with its noun, singular or plural."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
