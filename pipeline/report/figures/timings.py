"""Seconds a step and waiting for data over the steps of the trainings: for the page with cost."""

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from pipeline.config.params import Params
from pipeline.report.collect import read_log
from pipeline.report.figures.drawing import (
    Drawing,
    colours_of,
    draw_frame,
    legend_key,
    make_logarithmic,
    picture_of_panels,
    spans_decades,
)
from pipeline.report.results import Log, released
from pipeline.runtime.paths import Run

STEP_S, WAITING = "seconds_per_step", "waiting_share"
"""Columns of a training's timings."""


def timing_curves(params: Params, task: str) -> Drawing | None:
    """Return how the time of a step went, for every method and seed that has a record here.

    None if no training of the task has one. It differs from run to run, as the record does.
    """
    logs = _logs(params, task)
    if not logs:
        return None
    colours = colours_of(params)

    def draw(places: list[Axes]) -> list[Line2D]:
        seconds, waiting = places
        for name, found in logs.items():
            for log in found:
                seconds.plot(log["step"], log[STEP_S], color=colours[name], lw=1)
                waiting.plot(log["step"], 100 * log[WAITING], color=colours[name], lw=1)
        _finish(seconds, waiting)
        return [legend_key(colours[name], name) for name in logs]

    last = [f"{name} {100 * found[0][WAITING][-1]:.0f} %" for name, found in logs.items()]
    return picture_of_panels(
        f"timings_{task}.png",
        2,
        draw,
        alt=f"Time of a step, task {task}. Last waiting for data: {'; '.join(last)}.",
        caption="Mean of each logged interval of the last training here, one line a seed. The"
        " first interval holds the start; waiting is the share of the time without images.",
    )


def _logs(params: Params, task: str) -> dict[str, list[Log]]:
    found = {}
    for method in params.methods:
        if method not in released(params):
            paths = [Run(task, method, seed).timings for seed in params.seeds]
            logs = [read_log(path) for path in paths if path.is_file()]
            found[method] = [log for log in logs if STEP_S in log]
    return {method: logs for method, logs in found.items() if logs}


def _finish(seconds: Axes, waiting: Axes) -> None:
    draw_frame(seconds, "Seconds a step", "restorer update")
    if spans_decades(seconds):
        make_logarithmic(seconds)
    else:
        seconds.set_ylim(bottom=0)
    draw_frame(waiting, "Waiting for data (% of the time)", "restorer update")
    waiting.set_ylim(0, 100)
