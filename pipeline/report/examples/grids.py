"""Image grids: what each restorer made of the example images, pixel on pixel."""

from matplotlib.figure import Figure

from pipeline.report.examples.choice import CROP_PIXELS, Example, Examples
from pipeline.report.figures.drawing import GRID_DPI, Drawing, plain_style, to_png

GAP_PIXELS = 8
LINE_PIXELS = 22
HEADER_PIXELS = 32
POINTS_PER_INCH = 72


def image_grid(task: str, data_set: str, examples: Examples, name: str) -> Drawing:
    """Return the example images, one row an image, one column a restorer."""
    columns = max(len(row.panels) for row in examples.rows)
    row_pixels = CROP_PIXELS + 2 * LINE_PIXELS + GAP_PIXELS
    width = columns * (CROP_PIXELS + GAP_PIXELS) + GAP_PIXELS
    height = HEADER_PIXELS + len(examples.rows) * row_pixels
    with plain_style():
        figure = Figure(figsize=(width / GRID_DPI, height / GRID_DPI), dpi=GRID_DPI)
        for place, panel in enumerate(examples.rows[0].panels):
            _column_title(figure, panel.title, place)
        for place, row in enumerate(examples.rows):
            _draw_row(figure, row, HEADER_PIXELS + place * row_pixels)
        png, _, _ = to_png(figure, GRID_DPI)
    return Drawing(
        name=name,
        png=png,
        width=width,
        height=height,
        alt=f"Test images, task {task}, {data_set}. " + " ".join(map(_described, examples.rows)),
        caption=examples.rule,
    )


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
