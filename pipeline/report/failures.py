"""Where a method does harm: how many images got worse, and the worst of them."""

import numpy as np

from pipeline.config import Params
from pipeline.paths import DEGRADED
from pipeline.report.collect import DataSet, Values
from pipeline.report.examples import compared
from pipeline.report.tables import NONE, PSNR_DECIMALS, Cell, Table, baseline, restorer_label

WORST = 5
"""Images in the table of failures."""


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
        return Cell(name), Cell(_worse(gain)), Cell(versus), Cell(text)

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
    """Return the images with the smallest gains of the compared method, of all images scored.

    Scores are averaged over the seeds image by image; of equal gains the earlier image comes first.
    """
    method, other = compared(params)
    scores = {name: values.mean(axis=0) for name, values in data_set.psnr.items()}
    gains = scores[method] - scores[other]
    shown = list(dict.fromkeys((DEGRADED, other, method)))
    worst = np.argsort(gains, kind="stable")[:WORST]
    return Table(
        caption=f"The {len(worst)} images of {data_set.name} with the smallest gain in PSNR of"
        f" {restorer_label(method)} over {restorer_label(other)}; PSNR in dB",
        columns=("Image", "Scene", *map(restorer_label, shown), "Gain"),
        rows=tuple(
            (
                Cell(data_set.ids[place]),
                Cell(data_set.scenes[place]),
                *(Cell(f"{scores[name][place]:.{PSNR_DECIMALS}f}") for name in shown),
                Cell(f"{gains[place]:+.{PSNR_DECIMALS}f}"),
            )
            for place in worst
        ),
        words=2,
    )


def _worse(gains: Values) -> str:
    return f"{np.count_nonzero(gains < 0)} of {gains.size}"
