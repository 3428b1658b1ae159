"""Scores against the size of the restorer (paper, Figure 7)."""

from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator, StrMethodFormatter

from pipeline.config.params import Params
from pipeline.report.figures.drawing import (
    GREY,
    Drawing,
    colours_of,
    draw_frame,
    legend_key,
    over_seeds,
    picture_of_panels,
)
from pipeline.report.results import DataSet, TaskResults, TrainedModel
from pipeline.report.tables.scores import restorer_label
from pipeline.runtime.paths import DEGRADED


def scaling(params: Params, results: list[TaskResults]) -> Drawing | None:
    """Return every method's PSNR against the restorer's multiplications.

    One panel for each data set of tasks that have the same images and different restorers; None
    where there are no such tasks.
    """
    groups = [group for group in _groups(params, results) if len(group) > 1]
    drawn = [
        (group, number)
        for group in groups
        for number, data_set in enumerate(group[0].data_sets)
        if data_set.ids
    ]
    if not drawn:
        return None
    colours = colours_of(params)

    def draw(places: list[Axes]) -> list[Line2D]:
        for axes, (group, number) in zip(places, drawn, strict=True):
            _draw(axes, group, number, colours)
        keys = [legend_key(colour, restorer_label(name)) for name, colour in colours.items()]
        return [*keys, legend_key(GREY, restorer_label(DEGRADED), "--")]

    told = "; ".join(", ".join(task.name for task in group) for group in groups)
    best = " ".join(_best(group, number, list(colours)) for group, number in drawn)
    return picture_of_panels(
        "scaling.png",
        len(drawn),
        draw,
        alt=f"PSNR of each method against the multiplications of its restorer: {told}.",
        caption=f"PSNR against the size of the restorer (as the paper's Figure 7): {told}. Same"
        f" images and updates for every size{over_seeds(params)}. {best}",
    )


def _groups(params: Params, results: list[TaskResults]) -> list[list[TaskResults]]:
    """Return tasks with measured restorers, those with the same images together, by size."""
    groups: dict[str, list[TaskResults]] = {}
    for task in results:
        if all(model.giga_macs is not None for model in _models(task)):
            images = repr(replace(params.tasks[task.name], restorer=None))
            groups.setdefault(images, []).append(task)
    return [sorted(group, key=_giga_macs) for group in groups.values()]


def _models(task: TaskResults) -> list[TrainedModel]:
    return [model for models in task.models.values() for model in models]


def _giga_macs(task: TaskResults) -> float:
    return float(_models(task)[0].giga_macs or 0)


def _best(group: list[TaskResults], number: int, methods: list[str]) -> str:
    """Return a sentence: each method's best mean whatever the size, for adapted against any."""

    def mean(task: TaskResults, method: str) -> float:
        return float(task.data_sets[number].psnr[method].mean())

    told = []
    for method in methods:
        task = max(group, key=lambda task: mean(task, method))
        told.append(f"{restorer_label(method)} {mean(task, method):.2f} dB ({task.name})")
    return f"Best of any size on {group[0].data_sets[number].name}: {', '.join(told)}."


def _draw(axes: Axes, group: list[TaskResults], number: int, colours: dict[str, str]) -> None:
    data_sets: list[DataSet] = [task.data_sets[number] for task in group]
    sizes = [_giga_macs(task) for task in group]
    for name, colour in colours.items():
        means = [data_set.psnr[name].mean(axis=1) for data_set in data_sets]
        axes.plot(sizes, [np.mean(seeds) for seeds in means], color=colour, marker="o")
        if len(means[0]) > 1:
            for size, seeds in zip(sizes, means, strict=True):
                axes.plot([size] * len(seeds), seeds, ".", color=colour, alpha=0.5)
    axes.axhline(float(data_sets[0].psnr[DEGRADED].mean()), color=GREY, linestyle="--")
    draw_frame(axes, f"{data_sets[0].name}: PSNR [dB]", "GMACs of the restorer at 128x128")
    axes.set_xscale("log")
    axes.set_xticks(sizes)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:.2g}"))
