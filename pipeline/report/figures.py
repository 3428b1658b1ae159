"""Training curves and image grids: same inputs, same bytes."""

import io
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from pipeline.config import Params
from pipeline.report.collect import Log, TaskResults
from pipeline.report.examples import CROP_PIXELS, Example, Examples

# M. Okabe, K. Ito: Color Universal Design, 2008; told apart with every kind of colour vision
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")

RESTORATION = "restoration"
POSITIVE, NEGATIVE = "positive_error", "negative_error"
"""Columns of the training log: the denoiser's error with the right and the swapped conditions."""

LINES = ((0, RESTORATION, "-", ""), (1, POSITIVE, "-", ": d_pos"), (1, NEGATIVE, "--", ": d_neg"))
"""Panel, column, line style and what the legend adds to the method's name."""

PANEL_INCHES = (4.6, 3.4)
CURVES_DPI = 200
GRID_DPI = 100
GAP_PIXELS = 8
LINE_PIXELS = 22
HEADER_PIXELS = 32
POINTS_PER_INCH = 72


@dataclass(frozen=True)
class Picture:
    """A PNG file with what is said of it; width and height in CSS pixels."""

    name: str
    png: bytes
    width: int
    height: int
    alt: str
    caption: str


def curves(params: Params, task: TaskResults) -> Picture:
    """Return the restoration loss by step of every method, and the denoiser's errors if any."""
    logs = {method: [model.log for model in models] for method, models in task.models.items()}
    adapted = [method for method, chosen in logs.items() if POSITIVE in chosen[0]]
    with _plain_style():
        panels = 2 if adapted else 1
        figure = Figure(figsize=(panels * PANEL_INCHES[0], PANEL_INCHES[1]), layout="constrained")
        axes = figure.subplots(1, panels, squeeze=False)[0]
        for method, colour in zip(logs, itertools.cycle(COLOURS), strict=False):
            _draw_curves(axes, method, colour, logs[method])
        _finish(axes[0], "Restoration loss, synthetic pairs", params.train.pretrain_steps)
        if adapted:
            _finish(axes[1], "Noise prediction error of the denoiser", 0)
        png, width, height = _png(figure, CURVES_DPI)
    scale = CURVES_DPI // GRID_DPI
    last = [f"{name} {found[0][RESTORATION][-1]:.4f}" for name, found in logs.items()
            if RESTORATION in found[0]]  # fmt: skip
    return Picture(
        name=f"curves_{task.name}.png",
        png=png,
        width=width // scale,
        height=height // scale,
        alt=f"Training curves, task {task.name}. Last restoration loss: {'; '.join(last)}.",
        caption=_curves_caption(params, task, adapted),
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


def _curves_caption(params: Params, task: TaskResults, adapted: list[str]) -> str:
    said = ["Mean of each logged interval."]
    if len(params.seeds) > 1:
        said.append(f"One line for each of {len(params.seeds)} seeds.")
    if adapted:
        said.append(
            "d_pos: error with the restored images as conditions; d_neg: with their residuals"
            " swapped. Adaptation rests on d_neg staying above d_pos."
        )
    for method in adapted:
        logs = [model.log for model in task.models[method]]
        if NEGATIVE in logs[0]:
            gaps = np.concatenate([log[NEGATIVE] - log[POSITIVE] for log in logs])
            logged = gaps[~np.isnan(gaps)]
            said.append(
                f"{method}: d_neg above d_pos in {np.count_nonzero(logged > 0)} of {logged.size}"
                " logged intervals."
            )
    return " ".join(said)


def _draw_curves(axes: Sequence[Axes], method: str, colour: str, logs: list[Log]) -> None:
    for panel, column, style, suffix in LINES:
        for seed, log in enumerate(logs):
            if column in log:
                label = f"{method}{suffix}" if seed == 0 else None
                axes[panel].plot(log["step"], log[column], style, color=colour, lw=1.2, label=label)


def _finish(axes: Axes, title: str, pretrain_steps: int) -> None:
    axes.set_title(title)
    axes.set_xlabel("restorer update")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if pretrain_steps:
        axes.axvline(
            pretrain_steps, color="#777777", lw=1, ls=":", label="end of shared pretraining"
        )
    axes.legend(frameon=False)


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
