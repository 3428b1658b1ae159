"""Prediction error of the denoisers against the quality of their conditions (paper, Figure 1a)."""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pipeline.config.params import Params
from pipeline.report.figures.drawing import (
    Drawing,
    colours_of,
    draw_frame,
    legend_key,
    make_logarithmic,
    over_seeds,
    picture_of_panels,
    spans_decades,
)
from pipeline.report.results import TaskResults, Values

RESTORED_FROM, RESTORED_STEP = 1.15, 0.02
"""Places of the methods' errors with restored conditions, in units of the last sigma."""


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


def condition_quality(params: Params, task: TaskResults) -> Drawing | None:
    """Return the denoisers' errors against the noise in their conditions (paper, Figure 1a).

    Measured at the end of the training, see ``measure`` in pipeline/methods/noise_space.py.
    None if no method has a denoiser.
    """
    measured = _measured(task)
    if not measured:
        return None
    colours = colours_of(params)

    def draw(places: list[Axes]) -> list[Line2D]:
        (axes,) = places
        for place, name in enumerate(measured):
            _draw_quality(axes, place, measured[name], colours[name])
        _finish_quality(axes, measured)
        return [legend_key(colours[name], name) for name in measured]

    return picture_of_panels(
        f"conditions_{task.name}.png",
        1,
        draw,
        alt=_quality_alt(task.name, measured),
        caption=_quality_caption(params, measured),
    )


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
        f" {sigmas[-1]:g} over that at {sigmas[0]:g}{over_seeds(params)}: {'; '.join(ratios)}."
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
    draw_frame(axes, "Noise prediction error", "sigma of the noise in the conditions (0 to 255)")
    sigmas = next(iter(measured.values())).sigmas
    middle = sigmas[-1] * (RESTORED_FROM + (len(measured) - 1) / 2 * RESTORED_STEP)
    labels = [f"{sigma:g}" for sigma in sigmas]
    axes.set_xticks([*sigmas, middle], [*labels, "restored"])
    # denoisers of few diffusion steps have errors of other sizes
    if spans_decades(axes):
        make_logarithmic(axes)
