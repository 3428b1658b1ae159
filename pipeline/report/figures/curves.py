"""Training curves of all methods of a task."""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pipeline.config.params import Params
from pipeline.report.figures.drawing import (
    GREY,
    Drawing,
    Style,
    colours_of,
    draw_frame,
    legend_key,
    make_logarithmic,
    over_seeds,
    picture_of_panels,
    spans_decades,
)
from pipeline.report.results import Log, TaskResults

# columns of the training log
SCORE = "psnr_"
"""Begins the names of the validation's columns; the domain follows."""
RESTORATION = "restoration"
POSITIVE, NEGATIVE = "positive_error", "negative_error"
"""The denoiser's error with the right and the swapped conditions."""
TOTAL, CONTRAST = "total", "contrast"
"""All terms with their weights; L_con = max(0, d_pos - d_neg + margin) alone."""
DOMAIN = "domain"
"""Of a discriminator or domain classifier; ln 2 = 0.69 is guessing."""
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
    from_zero: bool = True


PANELS = (
    Curves("PSNR of real validation crops (dB)", ((f"{SCORE}real", "-", ""),), from_zero=False),
    Curves(
        "PSNR of synthetic validation crops (dB)",
        ((f"{SCORE}synthetic", "-", ""),),
        from_zero=False,
    ),
    Curves("Restoration loss, synthetic pairs", ((RESTORATION, "-", ""),)),
    Curves(
        "Noise prediction error of the denoiser",
        ((POSITIVE, "-", "d_pos"), (NEGATIVE, "--", "d_neg")),
    ),
    Curves("Loss of the whole step", ((TOTAL, "-", "total"), (CONTRAST, "--", "L_con"))),
    Curves("Cross-entropy of telling the domains apart", ((DOMAIN, "-", ""),)),
    Curves(
        "Norm of the gradient at the restored images",
        ((DIFFUSION_GRADIENT, "-", "of w L_dif"), (RESTORATION_GRADIENT, "--", "of L_res")),
        may_be_logarithmic=True,
    ),
)

FEW_METHODS = 4
"""Lines of more methods are thinner."""


def curves(params: Params, task: TaskResults) -> Drawing | None:
    """Return what every method logged by step; None if none was trained here.

    Panels: PSNR of the validation crops, restoration loss and whole loss, and of adapting methods
    the denoiser's errors and the two gradients.
    """
    logs = {name: [model.log for model in models] for name, models in task.models.items()}
    trained = {name: found for name, found in logs.items() if RESTORATION in found[0]}
    if not trained:
        return None
    chosen = [
        panel
        for panel in PANELS
        if any(panel.lines[0][0] in found[0] for found in trained.values())
    ]
    colours = colours_of(params)

    def draw(places: list[Axes]) -> list[Line2D]:
        for axes, panel in zip(places, chosen, strict=True):
            _draw_curves(axes, panel, trained, colours)
        keys = [legend_key(colours[name], name) for name in trained]
        if params.train.pretrain_steps:
            places[0].axvline(params.train.pretrain_steps, color=GREY, lw=1, ls=":")
            keys.append(legend_key(GREY, "end of shared pretraining", ":"))
        return keys

    last = [f"{name} {found[0][RESTORATION][-1]:.4f}" for name, found in trained.items()]
    return picture_of_panels(
        f"curves_{task.name}.png",
        len(chosen),
        draw,
        alt=f"Training curves, task {task.name}. Last restoration loss: {'; '.join(last)}.",
        caption=_curves_caption(params, trained),
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
    if any(CONTRAST in found[0] for found in logs.values()):
        said.append("L_con: contrast of the two, 0 where d_neg is above d_pos by the margin.")
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
            f" The first over the second in the last interval{over_seeds(params)}:"
            f" {'; '.join(pulls)}."
        )
    return " ".join(said)


def _pull(logs: list[Log]) -> float:
    """Return the last gradient norm of w L_dif over that of L_res, mean over the seeds."""
    ratios = [log[DIFFUSION_GRADIENT][-1] / log[RESTORATION_GRADIENT][-1] for log in logs]
    return float(np.mean(ratios))


def _draw_curves(
    axes: Axes, panel: Curves, logs: dict[str, list[Log]], colours: dict[str, str]
) -> None:
    width = 1.2 if len(logs) <= FEW_METHODS else 0.7
    styles = {}
    for name, found in logs.items():
        for log in found:
            for column, style, meaning in panel.lines:
                if column in log:
                    there = ~np.isnan(log[column])  # a row without validation has no score
                    steps, values = log["step"][there], log[column][there]
                    axes.plot(steps, values, style, color=colours[name], lw=width)
                    styles[meaning] = style
    draw_frame(axes, panel.title, "restorer update")
    if panel.may_be_logarithmic and spans_decades(axes):
        make_logarithmic(axes)
    elif panel.from_zero:
        axes.set_ylim(bottom=0)
    if len(panel.lines) > 1:
        keys = [legend_key(GREY, meaning, style) for meaning, style in styles.items()]
        axes.legend(handles=keys, frameon=False, ncols=len(keys))
