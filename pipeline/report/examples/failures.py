"""Where a method does harm: how many images got worse, and the worst of them."""

import numpy as np

from pipeline.config.params import Params
from pipeline.evaluation.kept_images import FAILURES
from pipeline.report.examples.choice import Example, Examples, compared, mean_gains, open_pictures
from pipeline.report.figures.drawing import over_seeds
from pipeline.report.results import DataSet, Values
from pipeline.report.tables.scores import (
    NONE,
    PSNR_DECIMALS,
    Cell,
    Table,
    baseline,
    method_label,
    restorer_label,
)
from pipeline.runtime.paths import DEGRADED


def harm_table(params: Params, data_set: DataSet) -> Table:
    """Return of each method how many images it left worse than they were, and than the baseline.

    Scores are averaged over the seeds image by image.
    """
    base = baseline(params)
    scores = {name: values.mean(axis=0) for name, values in data_set.psnr.items()}

    def row(name: str) -> tuple[Cell, ...]:
        gain = scores[name] - scores[DEGRADED]
        versus = NONE if base in (None, name) else _worse(scores[name] - scores[base])
        worst = int(np.argmin(gain))
        text = f"{gain[worst]:+.{PSNR_DECIMALS}f} ({data_set.ids[worst]})"
        label = method_label(params, name, data_set)
        return Cell(label), Cell(_worse(gain)), Cell(versus), Cell(text)

    return Table(
        caption=f"Images left with a lower PSNR than another version of them, {data_set.name}",
        columns=(
            "Restorer",
            "Worse than the degraded input",
            f"Worse than {base}" if base else "Worse than no adaptation",
            "Smallest gain over the input (dB)",
        ),
        rows=tuple(row(name) for name in params.methods),
    )


def failures_table(params: Params, data_set: DataSet) -> Table:
    """Return the images with the smallest gains of the compared method over the degraded input.

    Of all images scored, averaged over the seeds image by image.
    """
    method, other = compared(params)
    scores = {name: values.mean(axis=0) for name, values in data_set.psnr.items()}
    shown = list(dict.fromkeys((DEGRADED, other, method)))
    worst = _worst(params, data_set)
    places = {image: data_set.ids.index(image) for image in worst}
    return Table(
        caption=f"The {len(worst)} of {len(data_set.ids)} images of {data_set.name} with the"
        f" smallest gain in PSNR of {restorer_label(method)} over the degraded input"
        f"{over_seeds(params)}; PSNR in dB",
        columns=("Image", "Scene", *map(restorer_label, shown), "Gain"),
        rows=tuple(
            (
                Cell(image),
                Cell(data_set.scenes[place]),
                *(Cell(f"{scores[name][place]:.{PSNR_DECIMALS}f}") for name in shown),
                Cell(f"{worst[image]:+.{PSNR_DECIMALS}f}"),
            )
            for image, place in places.items()
        ),
        words=2,
    )


def failure_examples(params: Params, data_set: DataSet) -> Examples:
    """Return pictures of the first failures that the compared method stored, worst first.

    Raises:
        UserError: a store is missing or lacks an image.
    """
    method, other = compared(params)
    worst = _worst(params, data_set)
    shown = [name for name in params.methods if name in (method, other)]
    pictures = open_pictures(params, data_set, shown)
    stored = [image for image in worst if image in pictures.restored[method].ids]
    rows = tuple(
        Example(
            image,
            f"{image}, gain over the degraded input {worst[image]:+.{PSNR_DECIMALS}f} dB",
            pictures.panels(data_set, image),
        )
        for image in stored[: params.report.examples]
    )
    rule = (
        f"The pictures are the first {len(rows)} of {len(stored)} of these {len(worst)} images that"
        f" {restorer_label(method)} stored. {pictures.shown_how}"
    )
    return Examples(rule if rows else "None of these images was stored as a picture.", rows)


def _worst(params: Params, data_set: DataSet) -> dict[str, float]:
    """Return the images of the smallest gains in dB; of equal ones the earlier image comes first.

    Evaluations store those of their own seed, so that with several seeds a few may lack a picture.
    """
    gains = mean_gains(data_set, compared(params)[0], DEGRADED)
    return dict(sorted(gains.items(), key=lambda item: item[1])[:FAILURES])


def _worse(gains: Values) -> str:
    return f"{np.count_nonzero(gains < 0)} of {gains.size}"
