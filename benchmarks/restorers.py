"""What each restorer costs: parameters, multiplications, speed of training and restoring, memory.

    OMP_NUM_THREADS=1 python -m benchmarks.restorers [CHOICE ...] [--side 128] [--json FILE]

A choice is a file of ``pipeline/conf/restorer``; by default all. Each is measured in a process of
its own, in the precision that trainings would choose here, on a GPU if there is one. GMACs are
those of 128 pixels, as in the report, whatever the side.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.own_process import in_own_process, peak_mib
from pipeline.config.compose import CONF

REPEATS = 3


@dataclass(frozen=True)
class RestorerCost:
    """Of one image of ``side`` pixels, ``gmacs`` of 128; memory is the process's or the GPU's."""

    parameters: int
    gmacs: float
    training_images_s: float
    restoring_images_s: float
    peak_mib: float


def main() -> None:
    """Read the command line, measure, print."""
    choices = sorted(path.stem for path in (CONF / "restorer").glob("*.yaml"))
    parser = argparse.ArgumentParser(prog="python -m benchmarks.restorers")
    parser.add_argument("choices", nargs="*", choices=[*choices, []], metavar="CHOICE")
    parser.add_argument("--side", type=int, default=128, help="pixels, a multiple of 128 fits all")
    parser.add_argument("--json", type=Path, help="where to write every number")
    arguments = parser.parse_args()
    costs = {
        choice: in_own_process(measure, choice, arguments.side)
        for choice in arguments.choices or choices
    }
    table = Table(
        "restorer", "M parameters", "GMACs at 128", "trained a s", "restored a s",
        "peak MiB",
    )  # fmt: skip
    for choice, cost in sorted(costs.items(), key=lambda item: item[1].gmacs):
        table.add_row(
            choice, f"{cost.parameters / 1e6:.2f}", f"{cost.gmacs:.2f}",
            f"{cost.training_images_s:.2f}", f"{cost.restoring_images_s:.2f}",
            f"{cost.peak_mib:.0f}",
        )  # fmt: skip
    Console(width=100).print(table)
    if arguments.json:
        values = {choice: asdict(cost) for choice, cost in costs.items()}
        arguments.json.write_text(json.dumps(values, indent=1) + "\n")


def measure(choice: str, side: int) -> RestorerCost:
    """Return the cost of a restorer on images of ``side`` pixels, one at a time."""
    import torch
    from omegaconf import OmegaConf

    from pipeline.config.build import build
    from pipeline.config.restorers import RestorerSettings
    from pipeline.device import autocast, prepare_torch, use_precision
    from pipeline.inference.model import on_device
    from pipeline.models.build import build_restorer, giga_macs, parameter_count

    prepare_torch(torch.get_num_threads())
    precision = use_precision("auto")
    values = OmegaConf.to_container(OmegaConf.load(CONF / "restorer" / f"{choice}.yaml"))
    network = on_device(build_restorer(build(RestorerSettings, values, "restorer")))
    device = next(network.parameters()).device
    images = torch.rand(1, 3, side, side, device=device)

    def restore() -> None:
        with torch.no_grad(), autocast(device, precision):
            network(images).sum().item()

    optimizer = torch.optim.Adam(network.parameters(), fused=True)

    def train() -> None:
        with autocast(device, precision):
            loss = (network(images) - images).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    restoring, training = _seconds(restore), _seconds(train)
    gpu = device.type == "cuda"
    return RestorerCost(
        parameters=parameter_count(network),
        gmacs=giga_macs(network),
        training_images_s=1 / training,
        restoring_images_s=1 / restoring,
        peak_mib=torch.cuda.max_memory_allocated() / 2**20 if gpu else peak_mib(),
    )


def _seconds(step: Callable[[], None]) -> float:
    step()
    times = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        step()
        times.append(time.perf_counter() - begun)
    return statistics.median(times)


if __name__ == "__main__":
    main()
