"""What every picture of the report shares: style, colours, panels, PNG bytes."""

import io
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter
from PIL import Image

from pipeline.config.params import Params
from pipeline.images.pixels import Pixels

# M. Okabe, K. Ito: Color Universal Design, 2008; told apart with every kind of colour vision.
# Its yellow is too pale for a line on white: the wine of P. Tol's Colour Schemes, 2021, instead.
COLOURS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#882255",
)  # fmt: skip
GREY = "#777777"

Style = Literal["-", "--", ":"]

PANEL_INCHES = (4.6, 3.4)
COLUMNS = 2
LEGEND_ROWS = 14
"""More methods than that take a second column of the legend."""
CURVES_DPI = 200
GRID_DPI = 100
PNG_LEVEL = 2
"""Of compression, 0 to 9: half the time of the usual 6, a seventh more bytes."""
PAGE_QUALITY = 75
"""Of WebP inside the page, 0 to 100: a fifth of the bytes. The PNG files beside it are exact."""
WEBP_EFFORT = 2
"""Of WebP, 0 to 6: half the time of the usual 4, a twentieth more bytes."""


@dataclass(frozen=True)
class Drawing:
    """A PNG file with what is said of it; width and height in CSS pixels."""

    name: str
    png: bytes
    width: int
    height: int
    alt: str
    caption: str

    @cached_property
    def webp(self) -> bytes:
        """The picture as it stands inside the pages."""
        with Image.open(io.BytesIO(self.png)) as opened:
            return pixels_to_webp(np.asarray(opened.convert("RGB")), PAGE_QUALITY)


def colours_of(params: Params) -> dict[str, str]:
    """Return the colour of each method, the same in every picture."""
    return dict(zip(params.methods, itertools.cycle(COLOURS), strict=False))


def over_seeds(params: Params) -> str:
    """Return what a caption says of a mean, where there are several seeds."""
    return ", mean over the seeds" if len(params.seeds) > 1 else ""


def panels(count: int) -> tuple[Figure, list[Axes]]:
    """Return a figure and its panels in two columns, and last the place of the legend."""
    rows = count // COLUMNS + 1
    size = (COLUMNS * PANEL_INCHES[0], rows * PANEL_INCHES[1])
    figure = Figure(figsize=size, layout="constrained")
    widths = (2, 1) if rows == 1 else (1, 1)
    places = [*figure.subplots(rows, COLUMNS, squeeze=False, width_ratios=widths).flat]
    for unused in places[count:]:
        unused.set_axis_off()
    return figure, places[: count + 1]


def legend_key(colour: str, label: str, style: Style = "-") -> Line2D:
    """Return an entry of a legend."""
    return Line2D([], [], color=colour, linestyle=style, label=label)


def draw_legend(axes: Axes, keys: list[Line2D]) -> None:
    """Fill an empty panel with the legend: beside the curves it never hides one."""
    columns = 1 + (len(keys) - 1) // LEGEND_ROWS
    axes.legend(handles=keys, loc="upper left", frameon=False, ncols=columns)


def draw_frame(axes: Axes, title: str, x_label: str) -> None:
    """Give a panel its title, label and grid."""
    axes.set_title(title)
    axes.set_xlabel(x_label)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def spans_decades(axes: Axes) -> bool:
    """Return whether the largest of the positive values drawn is over ten times the smallest."""
    values = np.concatenate([np.asarray(line.get_ydata(), np.float64) for line in axes.lines])
    positive = values[values > 0]
    return bool(positive.size and positive.max() > 10 * positive.min())


def make_logarithmic(axes: Axes) -> None:
    """Make the vertical axis logarithmic, labelled with plain numbers."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    # matplotlib's own labels are formulas
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


@contextmanager
def plain_style() -> Iterator[None]:
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


def picture_of_panels(
    name: str, count: int, draw: Callable[[list[Axes]], list[Line2D]], alt: str, caption: str
) -> Drawing:
    """Return a picture of ``count`` panels, which ``draw`` fills; it returns the legend's keys."""
    with plain_style():
        figure, (*places, beside) = panels(count)
        draw_legend(beside, draw(places))
        png, width, height = to_png(figure, CURVES_DPI)
    width, height = (side * GRID_DPI // CURVES_DPI for side in (width, height))
    return Drawing(name, png, width, height, alt, caption)


def to_png(figure: Figure, dpi: int) -> tuple[bytes, int, int]:
    """Return a figure as PNG with its width and height in pixels."""
    buffer = io.BytesIO()
    figure.savefig(
        buffer, format="png", dpi=dpi, metadata={"Software": None},
        pil_kwargs={"compress_level": PNG_LEVEL},
    )  # fmt: skip
    width, height = (round(side * dpi) for side in figure.get_size_inches())
    return buffer.getvalue(), width, height


def pixels_to_webp(pixels: Pixels, quality: int | None = None) -> bytes:
    """Return (height, width, 3) uint8 as WebP; without a quality, 0 to 100, nothing is lost."""
    buffer = io.BytesIO()
    how = {"lossless": True} if quality is None else {"quality": quality, "method": WEBP_EFFORT}
    Image.fromarray(pixels).save(buffer, format="webp", **how)
    return buffer.getvalue()
