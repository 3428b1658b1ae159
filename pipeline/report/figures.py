"""Training curves, measurements and image grids: same inputs, same bytes."""

import io
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from pipeline.config import Params
from pipeline.report.collect import Log, TaskResults, Values
from pipeline.report.examples import CROP_PIXELS, Example, Examples

# M. Okabe, K. Ito: Color Universal Design, 2008; told apart with every kind of colour vision.
# Its yellow is too pale for a line on white: the wine of P. Tol's Colour Schemes, 2021, instead.
COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#882255",
)  # fmt: skip
GREY = "#777777"

Style = Literal["-", "--", ":"]

# columns of the training log
RESTORATION = "restoration"
POSITIVE, NEGATIVE = "positive_error", "negative_error"
"""The denoiser's error with the right and the swapped conditions."""
DIFFUSION_GRADIENT, RESTORATION_GRADIENT = "diffusion_gradient", "restoration_gradient"
"""L2 norms at the restored images of a batch, of w L_dif and of L_res."""


@dataclass(frozen=True)
class Curves:
    """One panel of training curves; ``lines`` are column of the log, line style, and its meaning.

    A panel whose first column no method has is left out.
    """

    title: str
    lines: tuple[tuple[str, Style, str], ...]
    may_be_logarithmic: bool = False


PANELS = (
    Curves("Restoration loss, synthetic pairs", ((RESTORATION, "-", ""),)),
    Curves(
        "Noise prediction error of the denoiser",
        ((POSITIVE, "-", "d_pos"), (NEGATIVE, "--", "d_neg")),
    ),
    Curves(
        "Norm of the gradient at the restored images",
        ((DIFFUSION_GRADIENT, "-", "of w L_dif"), (RESTORATION_GRADIENT, "--", "of L_res")),
        may_be_logarithmic=True,
    ),
)

PANEL_INCHES = (4.6, 3.4)
COLUMNS = 2
FEW_METHODS = 4
"""Lines of more methods are thinner."""
LEGEND_ROWS = 14
"""More methods than that take a second column of the legend."""
CURVES_DPI = 200
GRID_DPI = 100
GAP_PIXELS = 8
LINE_PIXELS = 22
HEADER_PIXELS = 32
POINTS_PER_INCH = 72

RESTORED_FROM, RESTORED_STEP = 1.15, 0.02
"""Places of the methods' errors with restored conditions, in units of the last sigma."""


@dataclass(frozen=True)
class Picture:
    """A PNG file with what is said of it; width and height in CSS pixels."""

    name: str
    png: bytes
    width: int
    height: int
    alt: str
    caption: str


@dataclass(frozen=True)
class Quality:
    """Prediction errors of one method's denoisers against the quality of their conditions.

    ``sigmas`` (n,) of the conditions' noise, 0 to 255; ``errors`` (seeds, n) at these;
    ``restored`` (seeds,) with the restored images as conditions.
    """

    sigmas: Values
    errors: Values
    restored: Values

    @property
    def last_over_first(self) -> float:
        """The ratio of the errors at the last and the first sigma, mean over the seeds."""
        return float((self.errors[:, -1] / self.errors[:, 0]).mean())

    @property
    def rising(self) -> int:
        """In how many seeds the error rises from each sigma to the next."""
        return int(np.count_nonzero((np.diff(self.errors, axis=1) > 0).all(axis=1)))


def curves(params: Params, task: TaskResults) -> Picture | None:
    """Return what every method logged by step; None if none was trained here.

    Panels: restoration loss, and of adapting methods the denoiser's errors and the two gradients.
    """
    logs = {name: [model.log for model in models] for name, models in task.models.items()}
    trained = {name: found for name, found in logs.items() if RESTORATION in found[0]}
    if not trained:
        return None
    panels = [
        panel
        for panel in PANELS
        if any(panel.lines[0][0] in found[0] for found in trained.values())
    ]
    colours = _colours(params)
    keys = [_key(colours[name], name) for name in trained]
    if params.train.pretrain_steps:
        keys.append(_key(GREY, "end of shared pretraining", ":"))
    with _plain_style():
        figure, places = _panels(len(panels))
        for axes, panel in zip(places, panels, strict=False):
            _draw_curves(axes, panel, trained, colours)
        if params.train.pretrain_steps:
            places[0].axvline(params.train.pretrain_steps, color=GREY, lw=1, ls=":")
        _legend(places[-1], keys)
        png, width, height = _png(figure, CURVES_DPI)
    last = [f"{name} {found[0][RESTORATION][-1]:.4f}" for name, found in trained.items()]
    return Picture(
        name=f"curves_{task.name}.png",
        png=png,
        width=width * GRID_DPI // CURVES_DPI,
        height=height * GRID_DPI // CURVES_DPI,
        alt=f"Training curves, task {task.name}. Last restoration loss: {'; '.join(last)}.",
        caption=_curves_caption(params, trained),
    )


def condition_quality(params: Params, task: TaskResults) -> Picture | None:
    """Return the denoisers' errors against the noise in their conditions (paper, Figure 1a).

    Measured at the end of the training, see ``measure`` in pipeline/adaptation/noise_space.py.
    None if no method has a denoiser.
    """
    measured = _measured(task)
    if not measured:
        return None
    colours = _colours(params)
    with _plain_style():
        figure, (axes, beside) = _panels(1)
        for place, name in enumerate(measured):
            _draw_quality(axes, place, measured[name], colours[name])
        _finish_quality(axes, measured)
        _legend(beside, [_key(colours[name], name) for name in measured])
        png, width, height = _png(figure, CURVES_DPI)
    return Picture(
        name=f"conditions_{task.name}.png",
        png=png,
        width=width * GRID_DPI // CURVES_DPI,
        height=height * GRID_DPI // CURVES_DPI,
        alt=_quality_alt(task.name, measured),
        caption=_quality_caption(params, measured),
    )


def image_grid(task: str, data_set: str, examples: Examples, name: str) -> Picture:
    """Return the example images, one row an image, one column a restorer."""
    columns = max(len(row.panels) for row in examples.rows)
    row_pixels = CROP_PIXELS + 2 * LINE_PIXELS + GAP_PIXELS
    width = columns * (CROP_PIXELS + GAP_PIXELS) + GAP_PIXELS
    height = HEADER_PIXELS + len(examples.rows) * row_pixels
    with _plain_style():
        figure = Figure(figsize=(width / GRID_DPI, height / GRID_DPI), dpi=GRID_DPI)
        for place, panel in enumerate(examples.rows[0].panels):
            _column_title(figure, panel.title, place)
        for place, row in enumerate(examples.rows):
            _draw_row(figure, row, HEADER_PIXELS + place * row_pixels)
        png, _, _ = _png(figure, GRID_DPI)
    return Picture(
        name=name,
        png=png,
        width=width,
        height=height,
        alt=f"Test images, task {task}, {data_set}. " + " ".join(map(_described, examples.rows)),
        caption=examples.rule,
    )


def _curves_caption(params: Params, logs: dict[str, list[Log]]) -> str:
    said = ["Mean of each logged interval."]
    if len(params.seeds) > 1:
        said.append(f"One line for each of {len(params.seeds)} seeds.")
    if any(POSITIVE in found[0] for found in logs.values()):
        said.append(
            "d_pos: error with the restored images as conditions; d_neg: with their residuals"
            " swapped. Adaptation rests on d_neg staying above d_pos."
        )
    for name, found in logs.items():
        if NEGATIVE in found[0]:
            gaps = np.concatenate([log[NEGATIVE] - log[POSITIVE] for log in found])
            logged = gaps[~np.isnan(gaps)]
            said.append(
                f"{name}: d_neg above d_pos in {np.count_nonzero(logged > 0)} of {logged.size}"
                " logged intervals."
            )
    pulls = [f"{name} {_pull(found):.2g}" for name, found in logs.items()
             if DIFFUSION_GRADIENT in found[0]]  # fmt: skip
    if pulls:
        said.append(
            "Gradients: L2 norm at the restored images of a batch, of the weighted diffusion loss"
            " w L_dif (both domains) and of the restoration loss L_res (synthetic images)."
            f" The first over the second in the last interval{_over_seeds(params)}:"
            f" {'; '.join(pulls)}."
        )
    return " ".join(said)


def _pull(logs: list[Log]) -> float:
    """Return the last gradient norm of w L_dif over that of L_res, mean over the seeds."""
    ratios = [log[DIFFUSION_GRADIENT][-1] / log[RESTORATION_GRADIENT][-1] for log in logs]
    return float(np.mean(ratios))


def _measured(task: TaskResults) -> dict[str, Quality]:
    """Return the measurements of those methods that have some."""
    facts = {
        name: [model.facts.get("measured", {}) for model in models]
        for name, models in task.models.items()
    }
    return {
        name: Quality(
            sigmas=np.array(seeds[0]["condition_sigma_255"], dtype=np.float64),
            errors=np.array([one["error"] for one in seeds], dtype=np.float64),
            restored=np.array([one["error_restored"] for one in seeds], dtype=np.float64),
        )
        for name, seeds in facts.items()
        if all(seeds)
    }


def _quality_caption(params: Params, measured: dict[str, Quality]) -> str:
    said = [
        "Error of our own denoisers in predicting the noise added to a few clean training images,"
        " when the conditions are these images plus Gaussian noise (paper, Figure 1a), measured at"
        " the end of the training."
    ]
    if len(params.seeds) > 1:
        said.append(f"Mean over {len(params.seeds)} seeds, one faint line a seed.")
    rising = sum(quality.rising for quality in measured.values())
    ratios = [f"{name} {quality.last_over_first:.2f}" for name, quality in measured.items()]
    sigmas = next(iter(measured.values())).sigmas
    said.append(
        "Dotted lines and diamonds: with the restored images as conditions, as in training."
        " Adaptation rests on an error that rises with sigma: from each sigma to the next it rises"
        f" in {rising} of {_trainings(len(measured) * len(params.seeds))}. Error at sigma"
        f" {sigmas[-1]:g} over that at {sigmas[0]:g}{_over_seeds(params)}: {'; '.join(ratios)}."
    )
    return " ".join(said)


def _quality_alt(task: str, measured: dict[str, Quality]) -> str:
    said = []
    for name, quality in measured.items():
        first, last = quality.errors.mean(axis=0)[[0, -1]]
        said.append(
            f"{name} {first:.4f} at sigma {quality.sigmas[0]:g}, {last:.4f} at"
            f" {quality.sigmas[-1]:g}, {quality.restored.mean():.4f} with restored images"
        )
    return f"Prediction error against noise in the conditions, task {task}: {'; '.join(said)}."


def _trainings(number: int) -> str:
    return "1 training" if number == 1 else f"{number} trainings"


def _over_seeds(params: Params) -> str:
    return ", mean over the seeds" if len(params.seeds) > 1 else ""


def _colours(params: Params) -> dict[str, str]:
    """Return the colour of each method, the same in every picture."""
    return dict(zip(params.methods, itertools.cycle(COLOURS), strict=False))


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    """Return a figure and its panels in two columns, and last the place of the legend."""
    rows = count // COLUMNS + 1
    size = (COLUMNS * PANEL_INCHES[0], rows * PANEL_INCHES[1])
    figure = Figure(figsize=size, layout="constrained")
    widths = (2, 1) if rows == 1 else (1, 1)
    places = [*figure.subplots(rows, COLUMNS, squeeze=False, width_ratios=widths).flat]
    for unused in places[count:]:
        unused.set_axis_off()
    return figure, places[: count + 1]


def _key(colour: str, label: str, style: Style = "-") -> Line2D:
    """Return an entry of a legend."""
    return Line2D([], [], color=colour, linestyle=style, label=label)


def _legend(axes: Axes, keys: list[Line2D]) -> None:
    """Fill an empty panel with the legend: beside the curves it never hides one."""
    columns = 1 + (len(keys) - 1) // LEGEND_ROWS
    axes.legend(handles=keys, loc="upper left", frameon=False, ncols=columns)


def _draw_curves(
    axes: Axes, panel: Curves, logs: dict[str, list[Log]], colours: dict[str, str]
) -> None:
    width = 1.2 if len(logs) <= FEW_METHODS else 0.7
    styles = {}
    for name, found in logs.items():
        for log in found:
            for column, style, meaning in panel.lines:
                if column in log:
                    axes.plot(log["step"], log[column], style, color=colours[name], lw=width)
                    styles[meaning] = style
    _frame(axes, panel.title, "restorer update")
    if panel.may_be_logarithmic and _spans_decades(axes):
        _make_logarithmic(axes)
    else:
        axes.set_ylim(bottom=0)
    if len(panel.lines) > 1:
        keys = [_key(GREY, meaning, style) for meaning, style in styles.items()]
        axes.legend(handles=keys, frameon=False, ncols=len(keys))


def _draw_quality(axes: Axes, place: int, quality: Quality, colour: str) -> None:
    x = quality.sigmas[-1] * (RESTORED_FROM + place * RESTORED_STEP)
    restored = quality.restored.mean()
    if len(quality.errors) > 1:
        axes.plot(quality.sigmas, quality.errors.T, color=colour, lw=0.6, alpha=0.4)
        seeds = np.full(len(quality.restored), x)
        axes.plot(seeds, quality.restored, "_", color=colour, ms=5, alpha=0.4)
    axes.plot(quality.sigmas, quality.errors.mean(axis=0), "-o", color=colour, lw=1.2, ms=3)
    axes.plot([quality.sigmas[0], x], [restored, restored], ":", color=colour, lw=0.8, alpha=0.7)
    axes.plot(x, restored, "D", color=colour, ms=4)


def _finish_quality(axes: Axes, measured: dict[str, Quality]) -> None:
    _frame(axes, "Noise prediction error", "sigma of the noise in the conditions (0 to 255)")
    sigmas = next(iter(measured.values())).sigmas
    middle = sigmas[-1] * (RESTORED_FROM + (len(measured) - 1) / 2 * RESTORED_STEP)
    labels = [f"{sigma:g}" for sigma in sigmas]
    axes.set_xticks([*sigmas, middle], [*labels, "restored"])
    # denoisers of few diffusion steps have errors of other sizes
    if _spans_decades(axes):
        _make_logarithmic(axes)


def _spans_decades(axes: Axes) -> bool:
    """Return whether the largest of the positive values drawn is over ten times the smallest."""
    values = np.concatenate([np.asarray(line.get_ydata(), np.float64) for line in axes.lines])
    positive = values[values > 0]
    return bool(positive.size and positive.max() > 10 * positive.min())


def _make_logarithmic(axes: Axes) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    # matplotlib's own labels are formulas
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def _frame(axes: Axes, title: str, x_label: str) -> None:
    axes.set_title(title)
    axes.set_xlabel(x_label)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_row(figure: Figure, row: Example, top: int) -> None:
    _text(figure, row.title, GAP_PIXELS, top + LINE_PIXELS / 2, 9, ha="left", weight="bold")
    total_height = round(figure.get_figheight() * GRID_DPI)
    for place, panel in enumerate(row.panels):
        height, width, _ = panel.pixels.shape
        left = GAP_PIXELS + place * (CROP_PIXELS + GAP_PIXELS)
        x = left + (CROP_PIXELS - width) // 2
        y = top + LINE_PIXELS + (CROP_PIXELS - height) // 2
        # pixel on pixel, counted from the bottom: nothing is resampled
        figure.figimage(panel.pixels, x, total_height - y - height, origin="upper")
        if panel.psnr is not None:
            below = top + LINE_PIXELS * 1.5 + CROP_PIXELS
            _text(figure, f"{panel.psnr:.2f} dB", left + CROP_PIXELS / 2, below, 9)


def _column_title(figure: Figure, title: str, place: int) -> None:
    # a long name gets smaller letters, about 0.65 em wide each
    fits = CROP_PIXELS * POINTS_PER_INCH / GRID_DPI / (0.65 * len(title))
    x = GAP_PIXELS + place * (CROP_PIXELS + GAP_PIXELS) + CROP_PIXELS / 2
    _text(figure, title, x, HEADER_PIXELS / 2, min(10, fits))


def _text(
    figure: Figure, text: str, x: float, y: float, size: float, ha: str = "center",
    weight: str = "normal",
) -> None:  # fmt: skip
    """Write at pixels from the left and the top."""
    width, height = (side * GRID_DPI for side in figure.get_size_inches())
    figure.text(x / width, 1 - y / height, text, ha=ha, va="center", size=size, weight=weight)


def _described(row: Example) -> str:
    scores = ", ".join(f"{p.title} {p.psnr:.2f} dB" for p in row.panels if p.psnr is not None)
    return f"{row.image} ({row.title}): {scores}." if scores else f"{row.image}."


@contextmanager
def _plain_style() -> Iterator[None]:
    """Set matplotlib's own defaults, whatever a user's matplotlibrc says; names are no formulas."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({
            "text.parse_math": False,
            "font.size": 9,
            "axes.titlesize": 10,
            "legend.fontsize": 8,
        })  # fmt: skip
        yield


def _png(figure: Figure, dpi: int) -> tuple[bytes, int, int]:
    """Return a figure as PNG with its width and height in pixels."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    width, height = (round(side * dpi) for side in figure.get_size_inches())
    return buffer.getvalue(), width, height
