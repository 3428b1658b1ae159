"""An update of the paper's networks: time, memory, and the share of what the card can do."""

import gc
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.setup import Findings, Row, Setup
from benchmarks.steps import SIZES, Size, Variant, build_step, project_step, random_batch
from pipeline.device import Precision, prepare_torch, use_precision
from pipeline.models.build import build_restorer
from pipeline.models.denoiser.network import Denoiser
from pipeline.training.memory import is_out_of_memory

TITLE = "An update"
ROWS: dict[str, Variant | None] = {
    "plain: four passes, fp32": None,
    "fp32": Variant("fp32"),
    "tf32": Variant("tf32"),
    "bf16, channels first": Variant("bf16", channels_last=False),
    "bf16": Variant("bf16"),
    "bf16, PyTorch's interpolation": Variant("bf16", products=False),
    "bf16, plain diffusers blocks": Variant("bf16", plain_blocks=True),
    "bf16, checkpointing": Variant("bf16", checkpointed=True),
    "vanilla, tf32": Variant("tf32", adapts=False),
    "vanilla, bf16": Variant("bf16", adapts=False),
    "bf16, compile": Variant("bf16", compiled=True),
}
"""None is the step of ``benchmarks/baseline.py``. All but the first and ``channels first`` have
channels last in memory, as trainings do. Compiled last: that takes minutes."""
WARM_UP, TIMED = 2, 4


@dataclass(frozen=True)
class Scale:
    """Batches that are measured: of all variants, and those that grow until memory ends."""

    batch: int
    growing: tuple[int, ...]
    compiles: bool


SCALES = {
    "paper": Scale(24, (8, 16, 32, 48, 64, 96, 128, 192, 256, 384), compiles=True),
    "tiny": Scale(2, (1, 4), compiles=False),
}
"""24 is what a card takes in the release. Without a GPU there may be no compiler either."""


def measure(setup: Setup, before: Findings) -> Iterator[Row]:
    """Yield the card's own rates, a row for each variant, then growing batches."""
    device, scale = torch.device(setup.device), SCALES[setup.size]
    prepare_torch(torch.get_num_threads())
    rates: dict[str, float] = {}
    for precision in ("fp32", "tf32", "bf16"):
        rates[precision] = own_rate(device, precision, setup.large)
        yield {"update": f"(a convolution or product alone, {precision})",
               "TFLOP/s": rates[precision] / 1e12}  # fmt: skip
    slow = [name for name in ROWS if name.endswith("compile")]
    for name in ROWS:
        if name not in slow:
            yield measured(name, ROWS[name], setup, scale.batch, rates)
    for name in ("bf16", "bf16, checkpointing"):
        for batch in scale.growing:
            row = measured(name, ROWS[name], setup, batch, rates)
            yield row
            if "out of memory" in row:
                break
    for name in slow if scale.compiles else ():
        yield measured(name, ROWS[name], setup, scale.batch, rates)


def measured(
    name: str, variant: Variant | None, setup: Setup, batch: int, rates: dict[str, float]
) -> Row:
    """Return a row: milliseconds, images a second, peak memory, share of the card's own rate."""
    size = replace(SIZES[setup.size], batch=batch)
    row: Row = {"update": name, "batch": batch}
    device = torch.device(setup.device)
    _forget(device)
    try:
        step = _step(variant, size, device)
        seconds = seconds_of(step, device)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return {**row, "out of memory": "yes"}
    finally:
        step = None  # type: ignore[assignment]
        torch.use_deterministic_algorithms(True)
    flops = batch * flops_of_image(size, variant is None or variant.adapts)
    precision = "fp32" if variant is None else variant.precision
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None
    return {
        **row, "ms": 1000 * seconds, "images/s": batch / seconds, "peak GiB": peak,
        "TFLOP/s": flops / seconds / 1e12, "of the card's own": flops / seconds / rates[precision],
    }  # fmt: skip


def _step(variant: Variant | None, size: Size, device: torch.device) -> Callable[[], float]:
    if variant is None:
        use_precision("fp32")
        return build_step("plain", size, device)
    torch.manual_seed(0)
    return project_step(size, random_batch(size), variant, device)


def seconds_of(step: Callable[[], Any], device: torch.device) -> float:
    """Return the median of a few runs, after two that are not timed."""
    times = []
    for number in range(WARM_UP + TIMED):
        _wait(device)
        begun = time.perf_counter()
        step()
        _wait(device)
        if number >= WARM_UP:
            times.append(time.perf_counter() - begun)
    return statistics.median(times)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _forget(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def own_rate(device: torch.device, precision: Precision, large: bool) -> float:
    """Return what a large product or convolution alone reaches, the better, FLOP/s."""
    use_precision(precision)
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    side = 8192 if large else 128
    matrix = torch.randn(side, side, device=device).to(kind)
    product = 2 * side**3 / seconds_of(lambda: matrix @ matrix, device)
    images, channels = (32, 256) if large else (1, 16)
    order = torch.channels_last
    given = torch.randn(images, channels, 64, 64, device=device).to(kind).to(memory_format=order)
    kernel = torch.randn(channels, channels, 3, 3, device=device).to(kind).to(memory_format=order)
    flops = 2 * 9 * channels * given.numel()
    convolution = flops / seconds_of(lambda: F.conv2d(given, kernel, padding=1), device)
    torch.backends.cuda.matmul.allow_tf32 = before
    return max(product, convolution)


def flops_of_image(size: Size, adapts: bool) -> float:
    """Return the FLOPs of an update for one image of each domain: backward counts twice.

    Restored are both domains (vanilla: the synthetic one), the denoiser sees both conditions.
    """
    given = torch.empty(1, 3, size.patch, size.patch, device="meta")

    def forward(network: nn.Module, *images: torch.Tensor) -> int:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            network(*images)
        return int(counter.get_total_flops())

    with torch.device("meta"):
        restorer = build_restorer(size.restorer)
        one = forward(restorer, given)
        if not adapts:
            return 3 * one
        denoiser = Denoiser(size.denoiser, conditions=2).eval()
        conditions = torch.cat([given, given], dim=1)
        return 3 * (2 * one + 2 * forward(denoiser, given, conditions, torch.empty(1)))
