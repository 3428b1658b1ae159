"""Restored crops at several updates: what adapting changes as it goes (paper, Figure 2)."""

from matplotlib.figure import Figure
from safetensors.numpy import load_file

from pipeline.config.params import Params
from pipeline.images.pixels import Pixels
from pipeline.images.store import ImageStore
from pipeline.report.figures.drawing import GRID_DPI, Drawing, plain_style, to_png
from pipeline.report.results import TaskResults
from pipeline.report.tables.scores import baseline, compared_methods
from pipeline.runtime.paths import SNAPSHOTS_FILE, Run, task_images

DOMAIN = "real"
INCHES = 1.7


def progress(params: Params, task: TaskResults) -> Drawing | None:
    """Return crops of one real test image, restored by baseline and main method as they train.

    None without a main method, or where no test image has a clean version.
    """
    base, methods = baseline(params), compared_methods(params)
    if base is None or not methods:
        return None
    shown = {
        name: _snapshots(Run(task.name, name, params.seeds[0])) for name in (base, methods[-1])
    }
    if not all(shown.values()):
        return None
    store = ImageStore(task_images(task.name) / "validation.h5")
    index = store.data_sets.index(DOMAIN)
    rows = [
        [("degraded", store.image("degraded", index)),
         *((f"{name}, update {step:,}", crop) for step, crop in crops.items()),
         ("clean", store.image("clean", index))]
        for name, crops in shown.items()
    ]  # fmt: skip
    png, width, height = _draw(rows)
    steps = ", ".join(f"{step:,}" for step in next(iter(shown.values())))
    return Drawing(
        f"progress_{task.name}.png", png, width, height,
        alt=f"A crop of {store.ids[index]} restored at updates {steps} of {' and '.join(shown)}.",
        caption="One real test image, restored by the averaged weights as the training goes."
        " Nothing is chosen by it.",
    )  # fmt: skip


def _snapshots(run: Run) -> dict[int, Pixels]:
    path = run.training / SNAPSHOTS_FILE
    if not path.is_file():
        return {}
    steps = {
        int(name.removeprefix(f"{DOMAIN}.")): crop.transpose(1, 2, 0)
        for name, crop in load_file(path).items()
        if name.startswith(f"{DOMAIN}.")
    }
    return dict(sorted(steps.items()))


def _draw(rows: list[list[tuple[str, Pixels]]]) -> tuple[bytes, int, int]:
    columns = max(map(len, rows))
    with plain_style():
        figure = Figure(
            figsize=(columns * INCHES, len(rows) * (INCHES + 0.25)), layout="constrained"
        )
        places = figure.subplots(len(rows), columns, squeeze=False)
        for place in places.flat:
            place.set_axis_off()
        for line, row in zip(places, rows, strict=True):
            for place, (title, crop) in zip(line, row, strict=False):
                place.imshow(crop, interpolation="nearest")
                place.set_title(title, fontsize=7)
        return to_png(figure, GRID_DPI)
