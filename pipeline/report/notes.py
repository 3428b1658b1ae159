"""What a reader of a data set's tables must not overlook."""

import numpy as np

from pipeline.config import Params
from pipeline.metrics import PERFECT_PSNR
from pipeline.paths import DEGRADED
from pipeline.report.collect import DataSet, bounds, released
from pipeline.report.tables import (
    FEW_SCENES,
    baseline,
    compared_methods,
    count_text,
    restorer_label,
)


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
    found += [
        f"{name}: trained on the truth of the real photographs, which no other method is given. An"
        " upper bound, no competitor: neither marked nor compared."
        for name in bounds(params)
    ]
    found += [
        f"{name}: in the manner of AP-BSN, not its network: the same restorer as of the other"
        " methods is made blind to a few pixels, and restores in one pass."
        for name, method in params.methods.items()
        if method.adaptation == "ap_bsn"
    ]
    return found
