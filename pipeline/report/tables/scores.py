"""Scores as people read them, and what all tables share."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from pipeline.config.params import Params
from pipeline.report.results import DataSet, Values, bounds, real_domain, trained_methods
from pipeline.report.statistics import mean_and_std
from pipeline.report.summary import interval, over_seeds
from pipeline.runtime.paths import DEGRADED

NONE = "-"
NOT_MEASURED = "not measured"
PSNR_DECIMALS = 2
SSIM_DECIMALS = 4
OVER_SEEDS = ("mean over seeds", "std over seeds")
MEAN_AND_STD = "mean ± std"
"""Stands in the name of a column of both."""
FEW_SCENES = 10
"""Below it the bounds of a bootstrap interval are too narrow, see pipeline/statistics.py."""


@dataclass(frozen=True)
class Cell:
    """One cell of a table.

    ``best`` marks the best score of its column, ``theirs`` a number that was not measured here.
    ``parts`` are the numbers of a text that holds several, by what they are: columns of a CSV file.
    """

    text: str
    best: bool = False
    theirs: bool = False
    parts: Mapping[str, str] = field(default_factory=dict)


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
    method = trained_methods(params).get(restorer)
    said = f"in the manner of {method.manner}" if method and method.manner else None
    if restorer in bounds(params):
        domain = real_domain(params, data_sets[0].task)
        at_home = all(data_set.of_real_domain for data_set in data_sets)
        said = "upper bound" if at_home else f"trained on the truth of {domain}"
    return f"{restorer_label(restorer)} ({said})" if said else restorer_label(restorer)


def baseline(params: Params) -> str | None:
    """Return the first method without adaptation, against which the others are held."""
    plain = (name for name, method in params.methods.items() if method.kind == "vanilla")
    return next(plain, None)


def compared_methods(params: Params) -> list[str]:
    """Return the methods that are held against the baseline; those given the truth are not."""
    base = baseline(params)
    apart = {base, *bounds(params)}
    return [name for name in params.methods if name not in apart] if base else []


def score_table(params: Params, data_set: DataSet) -> Table:
    """Return PSNR, SSIM and LPIPS of the degraded input and every method, the best marked.

    With several seeds a score is the mean of the seeds' means and their standard deviation; the
    interval and the standard deviation over images are of the images' scores averaged over the
    seeds.
    """
    restorers = [DEGRADED, *params.methods]
    cells = score_cells(params, data_set, restorers)
    spread = f", {MEAN_AND_STD} over {len(params.seeds)} seeds" if len(params.seeds) > 1 else ""
    return Table(
        caption=f"{data_set.name}: {images_text(data_set)}, protocol {data_set.protocol}",
        columns=(
            "Restorer",
            f"PSNR (dB){spread}",
            "95 % interval of PSNR",
            "Std of PSNR over images",
            f"SSIM{spread}",
            "95 % interval of SSIM",
            "Std of SSIM over images",
            "LPIPS, lower is better",
            "95 % interval of LPIPS",
            "Std of LPIPS over images",
        ),
        rows=tuple(
            (
                Cell(method_label(params, name, data_set)),
                *cells["psnr"][name],
                _over_images(data_set.psnr, name, PSNR_DECIMALS),
                *cells["ssim"][name],
                _over_images(data_set.ssim, name, SSIM_DECIMALS),
                *cells["lpips"][name],
                _over_images(data_set.lpips, name, SSIM_DECIMALS),
            )
            for name in restorers
        ),
    )


def niqe_table(params: Params, data_set: DataSet) -> Table:
    """Return NIQE of the degraded input and every method; none is marked, as it knows no truth."""
    spread = f", {MEAN_AND_STD} over {len(params.seeds)} seeds" if len(params.seeds) > 1 else ""
    images = count_text(data_set.niqe[DEGRADED].shape[1], "image")
    return Table(
        caption=f"{data_set.name}: {images} without truth, NIQE",
        columns=("Restorer", f"NIQE, lower is more like clean photographs{spread}"),
        rows=tuple(
            (
                Cell(method_label(params, name, data_set)),
                spread_cell(*over_seeds(params, name, data_set.niqe[name]), PSNR_DECIMALS),
            )
            for name in (DEGRADED, *params.methods)
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


def images_text(data_set: DataSet) -> str:
    """Return how many images and scenes were scored."""
    scenes = count_text(len(set(data_set.scenes)), "scene")
    return f"{count_text(len(data_set.ids), 'image')} of {scenes}"


def _score_cells(
    params: Params,
    data_set: DataSet,
    scores: dict[str, Values],
    restorers: list[str],
    decimals: int,
    best_of: Callable[..., str] = max,
) -> dict[str, tuple[Cell, Cell]]:
    cells, means = {}, {}
    for name in restorers:
        mean, deviation = over_seeds(params, name, scores[name])
        means[name] = f"{mean:.{decimals}f}"
        cells[name] = spread_cell(mean, deviation, decimals)
    best = best_of((mean for name, mean in means.items() if name not in bounds(params)), key=float)
    return {
        name: (
            replace(cells[name], best=means[name] == best and name not in bounds(params)),
            interval_cell(interval(params, data_set, scores[name].mean(axis=0)), decimals),
        )
        for name in restorers
    }


def _over_images(scores: dict[str, Values], name: str, decimals: int) -> Cell:
    """Return the standard deviation of the images' scores, each averaged over the seeds."""
    deviation = mean_and_std(scores[name].mean(axis=0))[1] if name in scores else None
    return Cell(NONE if deviation is None else f"{deviation:.{decimals}f}")


def spread_cell(mean: float, deviation: float | None, decimals: int) -> Cell:
    """Return a mean over the seeds with its deviation over them, if there are several."""
    if deviation is None:
        return Cell(f"{mean:.{decimals}f}")
    parts = {OVER_SEEDS[0]: f"{mean:.{decimals}f}", OVER_SEEDS[1]: f"{deviation:.{decimals}f}"}
    return Cell(" ± ".join(parts.values()), parts=parts)


def interval_cell(bounds: tuple[float, float] | None, decimals: int, sign: str = "") -> Cell:
    """Return the bounds of an interval, or why there is none."""
    if bounds is None:
        return Cell(f"{NONE} (one scene)")
    low, high = (f"{bound:{sign}.{decimals}f}" for bound in bounds)
    return Cell(f"{low} to {high}", parts={"low": low, "high": high})


def count_text(number: int, noun: str) -> str:
    """Return a number with its noun, singular or plural."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
