"""What a reader of a data set's tables must not overlook."""

import numpy as np

from pipeline.config.params import Params
from pipeline.evaluation.metrics import PERFECT_PSNR
from pipeline.report.results import DataSet, bounds, real_domain, released, trained_methods
from pipeline.report.tables.scores import (
    FEW_SCENES,
    baseline,
    compared_methods,
    count_text,
    restorer_label,
)
from pipeline.runtime.paths import DEGRADED


def notes(params: Params, data_set: DataSet) -> list[str]:
    """Return sentences, each about all methods or the one it names first."""
    found = []
    scenes = len(set(data_set.scenes))
    means = {name: float(np.mean(values)) for name, values in data_set.psnr.items()}
    competing = [name for name in params.methods if name not in bounds(params)]
    if competing and all(means[name] <= means[DEGRADED] for name in competing):
        found.append("No method has a higher mean PSNR than the degraded input.")
    if scenes < FEW_SCENES:
        found.append(
            f"{count_text(scenes, 'scene')}: too few for an interval to be trusted; with fewer than"
            f" about {FEW_SCENES} the bounds are too narrow."
        )
    if len(params.seeds) == 1:
        found.append("One seed: how much another training run would differ is not known.")
    if data_set.unscored:
        found.append(
            f"{count_text(data_set.unscored, 'more image')} of this data set without a clean"
            " counterpart: restored, not scored."
        )
    equal = {name: int(np.count_nonzero(values == PERFECT_PSNR))
             for name, values in data_set.psnr.items()}  # fmt: skip
    if any(equal.values()):
        counts = ", ".join(f"{restorer_label(name)} {n}" for name, n in equal.items() if n)
        found.append(
            f"Images equal to the clean one, over all seeds: {counts}. Their PSNR is infinite and"
            f" counts as {PERFECT_PSNR:.0f} dB."
        )
    if data_set.no_lpips:
        found.append(f"LPIPS was not measured: {data_set.no_lpips}.")
    others = compared_methods(params)
    if len(others) > 1:
        found.append(
            f"{len(others)} methods are compared with {baseline(params)} on these images: the more"
            " are compared, the sooner one differs by chance. So go by the corrected p-values."
        )
    found += [
        f"{name}: weights of the authors' release, not trained here." for name in released(params)
    ]
    found += [_of_bound(params, data_set, name) for name in bounds(params)]
    trained = trained_methods(params)
    found += [
        f"{name}: in the manner of {method.manner}, {method.manner_note}."
        for name, method in trained.items()
        if method.manner
    ]
    found += [
        f"{name}: assumes {method.assumes}." for name, method in trained.items() if method.assumes
    ]
    return found + _starts(params) + _tuning(params)


def _of_bound(params: Params, data_set: DataSet, name: str) -> str:
    truth = f"{name}: trained on the truth of {real_domain(params, data_set.task)}, which no other"
    if data_set.of_real_domain:
        return (
            f"{truth} method is given. An upper bound, no competitor: neither marked nor compared."
        )
    return (
        f"{truth} method is given. These images come from elsewhere, so it bounds nothing here; no"
        " competitor all the same: neither marked nor compared."
    )


def _starts(params: Params) -> list[str]:
    """Return what a start from scratch means beside methods that start pretrained."""
    train = params.train
    if not train.pretrain_steps:
        return []
    return [
        f"{name}: from scratch, {train.steps:,} updates of its own"
        f"{' on real images alone' if method.real_alone else ''}. A method that"
        f" starts pretrained shares {train.pretrain_steps:,} updates on synthetic pairs and makes"
        f" {train.steps - train.pretrain_steps:,} of its own."
        for name, method in trained_methods(params).items()
        if method.start == "scratch"
    ]


def _tuning(params: Params) -> list[str]:
    """Return how unlike the weights of the losses were chosen, as docs/extending.md has it."""
    trained = trained_methods(params)
    tuned = [name for name, method in trained.items() if method.tuned_on]
    if not tuned:
        return []
    weighted = [
        name for name, method in trained.items()
        if name not in tuned and any(key.endswith("weight") for key in vars(method))
    ]  # fmt: skip
    others = (
        f" The weights of {', '.join(weighted)} come from their papers or the size of gradients;"
        " at most two were tried: not with equal effort."
        if weighted
        else ""
    )
    chosen = trained[tuned[0]].tuned_on.get(params.preset)
    if chosen:
        return [f"{', '.join(tuned)}: {chosen}, so a gain there is that of a tuned method.{others}"]
    said = f"{', '.join(tuned)}: values of its authors, for the paper's data.{others}"
    return [said] if weighted else []
