"""The report's first lines: what was gained, in sentences made from the numbers."""

import numpy as np

from pipeline.config.params import Params
from pipeline.report.results import DataSet, TaskResults, bounds
from pipeline.report.tables.differences import Family, Hypothesis
from pipeline.report.tables.gains import gains
from pipeline.report.tables.scores import baseline, compared_methods, restorer_label
from pipeline.runtime.paths import DEGRADED

SURE = 0.05
"""Corrected p-value up to which a difference is called one."""

LITTLE_DB = 1.0
"""Up to which gain over its input a bound is said to have learnt little."""


def findings(params: Params, results: list[TaskResults], family: Family) -> list[str]:
    """Return for each task a sentence on its main method, and what must not be overlooked."""
    found = []
    for task in results:
        scored = [data_set for data_set in task.data_sets if data_set.ids]
        own = next((data_set for data_set in scored if data_set.of_real_domain), None)
        if own is None or not compared_methods(params):
            continue
        found.append(_gain(params, own, family))
        found += _cost(params, scored)
        found += _harm(params, own)
    return found


def _gain(params: Params, data_set: DataSet, family: Family) -> str:
    base, method = str(baseline(params)), compared_methods(params)[-1]
    reached, of_base = _mean(data_set, method), _mean(data_set, base)
    tested = family[Hypothesis(data_set.task, data_set.name, method, base, "psnr")]
    sure = tested.corrected is not None and tested.corrected <= SURE
    p_value = "" if tested.corrected is None else f", p = {tested.corrected:.2g}"
    text = (
        f"{data_set.task}: on {data_set.name}, {method} restores {_better(reached, of_base)}"
        f" than {base} after as many updates ({reached:.2f} against {of_base:.2f} dB,"
        f" {len(set(data_set.scenes))} scenes{p_value})"
    )
    if not sure:
        text += "; the difference may be chance"
    share = next((one for one in gains(params, data_set) if one.method == method), None)
    if share is not None and share.share is not None and share.gain > 0:
        text += f". That is {share.share:.0%} of what training on real pairs gains"
    return f"{text}."


def _cost(params: Params, scored: list[DataSet]) -> list[str]:
    """Return what adapting costs where the restorer was trained: on the synthetic domain."""
    base, method = str(baseline(params)), compared_methods(params)[-1]
    return [
        f"{data_set.task}: on synthetic test images ({data_set.name}), {method} scores"
        f" {_better(_mean(data_set, method), _mean(data_set, base))} than {base}."
        for data_set in scored
        if data_set.domain == "synthetic"
    ]


def _harm(params: Params, data_set: DataSet) -> list[str]:
    """Return which methods leave the images worse than they were, and why it may be so."""
    competing = [name for name in params.methods if name not in bounds(params)]
    degraded = _mean(data_set, DEGRADED)
    worse = [name for name in competing if _mean(data_set, name) <= degraded]
    if not worse:
        return []
    scores = ", ".join(f"{name} {_mean(data_set, name):.2f}" for name in worse)
    text = (
        f"{data_set.task}: not better than the {restorer_label(DEGRADED)} ({degraded:.2f} dB):"
        f" {scores} dB."
    )
    for bound in bounds(params)[:1]:
        reached = _mean(data_set, bound)
        if reached - degraded < LITTLE_DB:
            text += (
                f" Even {bound}, trained on real pairs, scores {_better(reached, degraded)} than"
                " its input, so this restorer learns little of this task in so many updates."
            )
    return [text]


def _better(score: float, than: float) -> str:
    return f"{abs(score - than):.2f} dB {'better' if score >= than else 'worse'}"


def _mean(data_set: DataSet, restorer: str) -> float:
    return float(np.mean(data_set.psnr[restorer]))
