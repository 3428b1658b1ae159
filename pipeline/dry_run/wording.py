"""What a dry run found, in tables and sentences."""

import math
import os
from dataclasses import dataclass
from typing import Any

from pipeline.config.params import Params
from pipeline.dry_run.measuring import Cost, Counted, Networks, gpus


@dataclass(frozen=True)
class Row:
    """One kind of training: its method, number of updates, networks and cost of a share.

    ``tasks``: how many tasks train it.
    """

    label: str
    tasks: int
    updates: int
    networks: Networks
    cost: Cost

    def seconds(self, params: Params) -> float:
        """Return what one training takes."""
        return self.cost.seconds * params.train.accumulate * self.updates

    def all_seconds(self, params: Params) -> float:
        """Return what the trainings of all its tasks and seeds take."""
        return self.seconds(params) * self.tasks * len(params.seeds)


def overview(params: Params, kinds: int) -> str:
    """Return how many trainings of so many kinds there are, and how a batch is divided."""
    train = params.train
    processes = train.devices * train.nodes
    share = train.batch // (processes * train.accumulate)
    runs = len(params.tasks) * len(params.seeds)
    return (
        f"Preset {params.preset}: the configuration is valid. {len(params.tasks)} tasks x"
        f" {len(params.seeds)} seeds x {kinds} = {runs * kinds} trainings. Batch of {train.batch}:"
        f" {processes} processes x {train.accumulate} shares x {share} images."
    )


def table(params: Params, rows: list[Row]) -> Any:
    """Return a table for the console of the trainings of one restorer."""
    from rich.table import Table

    where = "a GPU" if gpus() else "this processor, estimated from shares of 1 and 2 images"
    networks = rows[0].networks
    shown = Table(
        title=f"Restorer: {networks.restorer:,} parameters, {networks.giga_macs:.2f} GMACs at"
        f" 128x128. One process on {where}:",
        title_justify="left",
    )
    shown.add_column("Training")
    for name in ("Thrown away", "Memory", "Update", "Updates", "Training", "All"):
        shown.add_column(name, justify="right")
    for row in rows:
        one = row.seconds(params)
        shown.add_row(
            row.label,
            f"{row.networks.extra:,}",
            f"{row.cost.memory / 2**30:.1f} GiB",
            f"{row.cost.seconds * params.train.accumulate:.3g} s",
            f"{row.updates:,}",
            _duration(one),
            _duration(row.all_seconds(params)),
        )
    return shown


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 200 * 3600 else f"{seconds / 86400:.0f} days"


CARDS_GIB = (24, 40, 80)
"""Memories of usual GPUs."""
USABLE = 0.9
"""Of a card's memory, assumed: the rest is CUDA's own, and lies between tensors."""


def card_advice(params: Params, counted: dict[bool, Counted]) -> list[str]:
    """Return on which GPUs the largest training fits, and what to set for those where it does not.

    Args:
        params: the configuration.
        counted: memory without and with gradient checkpointing.
    """
    train = params.train
    part = train.batch // (train.devices * train.nodes)
    share = part // train.accumulate
    plain, lean = (line.at(share) / 2**30 for line in (counted[False], counted[True]))
    lines = [
        f"On a GPU, counted: {plain:.1f} GiB for a share of {share} images, {lean:.1f} GiB with"
        " train.gradient_checkpointing=true; not counted: what CUDA takes for itself."
    ]
    for card in CARDS_GIB:
        room = card * USABLE
        if (lean if train.gradient_checkpointing else plain) <= room:
            lines.append(f"Fits in {card} GiB.")
            break
        ways = ["train.gradient_checkpointing=true"] if lean <= room else []
        shares = _shares_that_fit(part, train.accumulate, counted[False], room)
        ways += [f"train.accumulate={shares}"] if shares else []
        lines.append(
            f"Does not fit in {card} GiB; "
            + (f"try {' or '.join(ways)}." if ways else "nor does any share of it.")
        )
    return lines


def _shares_that_fit(part: int, at_least: int, line: Counted, room_gib: float) -> int | None:
    """Return the smallest ``accumulate`` that divides a process's part and fits."""
    for shares in range(at_least, part + 1):
        if part % shares == 0 and line.at(part // shares) / 2**30 <= room_gib:
            return shares
    return None


def conclusions(params: Params, rows: list[Row]) -> list[str]:
    """Return sentences: what all trainings take, and whether they fit this machine."""
    from pipeline.training.memory import advice  # imports torch, which may not fit: the doctor says

    train = params.train
    needed = max(row.cost.memory for row in rows)
    seconds = sum(row.all_seconds(params) for row in rows)
    lines = [
        "Thrown away: parameters needed in training only. Every kind ran three updates.",
        f"All trainings one after the other, at this machine's rate: {_duration(seconds)}"
        " (estimated; not: reading data, checkpoints, talk between processes).",
    ]
    found = gpus()
    if found:
        import torch

        available = torch.cuda.get_device_properties(0).total_memory
        where = f"GPU memory here is {available / 2**30:.0f} GiB"
    else:
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        needed *= train.devices
        where = f"{train.devices} processes on this machine of {available / 2**30:.0f} GiB"
        if needed > params.resources.mem_mb * 2**20:
            lines.append(
                f"Set resources.mem_mb to at least {math.ceil(needed / 2**20):,}: schedulers are"
                f" asked for {params.resources.mem_mb:,} (on GPUs most of it lies there instead)."
            )
    verdict = "fits" if needed < available else f"DOES NOT FIT; set {advice(train)}"
    lines.append(f"Largest memory {needed / 2**30:.1f} GiB, {where}: {verdict}.")
    if train.devices > max(found, 1):
        lines.append(
            f"train.devices is {train.devices}, this machine has {found} GPUs: here it would"
            + (" be refused." if found else f" start {train.devices} processes on the processor.")
        )
    return lines
