"""What a method gains on the real domain, held against what there is to gain."""

from dataclasses import dataclass

from pipeline.config.params import Params
from pipeline.randomness import numpy_generator
from pipeline.report.results import DataSet, bounds
from pipeline.report.statistics import Interval, bootstrap_ratio
from pipeline.report.tables.scores import (
    NONE,
    PSNR_DECIMALS,
    Cell,
    Table,
    baseline,
    compared_methods,
    images_text,
    interval_cell,
    method_label,
)


@dataclass(frozen=True)
class Gain:
    """PSNR of a method and of the bound minus that of the baseline, dB, mean over the images.

    ``share`` is gain / headroom with its 95 % interval over scenes; None where the bound gains
    nothing, or there is no bound.
    """

    method: str
    gain: float
    headroom: float | None
    share: float | None
    interval: Interval | None


def gains(params: Params, data_set: DataSet) -> list[Gain]:
    """Return the gain of every compared method; empty without a baseline.

    A bound says what there is to gain on its own domain alone.
    """
    base = baseline(params)
    if base is None:
        return []
    of_base = data_set.psnr[base].mean(axis=0)
    bound = next(iter(bounds(params)), None) if data_set.of_real_domain else None
    room = data_set.psnr[bound].mean(axis=0) - of_base if bound else None
    found = []
    for method in compared_methods(params):
        gain = data_set.psnr[method].mean(axis=0) - of_base
        share = interval = None
        if room is not None and room.mean() > 0:
            share = float(gain.mean() / room.mean())
            generator = numpy_generator("report", data_set.task, data_set.name)
            samples = params.report.bootstrap_samples
            interval = bootstrap_ratio(gain, room, samples, generator, groups=data_set.scenes)
        headroom = None if room is None else float(room.mean())
        found.append(Gain(method, float(gain.mean()), headroom, share, interval))
    return found


def gain_table(params: Params, data_set: DataSet) -> Table | None:
    """Return gain, headroom and their ratio; None where no bound is of this domain."""
    found = [one for one in gains(params, data_set) if one.headroom is not None]
    if not found:
        return None
    bound = bounds(params)[0]
    return Table(
        caption=f"What is gained of what there is to gain. Gain: PSNR minus that of"
        f" {baseline(params)}. Headroom: the same of {bound}, trained on the real pairs themselves;"
        f" {images_text(data_set)}.",
        columns=("Method", "Gain (dB)", "Headroom (dB)", "Gain / headroom", "95 % interval"),
        rows=tuple(
            (
                Cell(method_label(params, one.method, data_set)),
                Cell(f"{one.gain:+.{PSNR_DECIMALS}f}"),
                Cell(f"{one.headroom:+.{PSNR_DECIMALS}f}"),
                Cell(NONE if one.share is None else f"{one.share:.2f}"),
                interval_cell(one.interval, PSNR_DECIMALS),
            )
            for one in found
        ),
    )
