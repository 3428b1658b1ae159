"""Time, memory and arithmetic of one joint training step of the paper's networks.

    python -m benchmarks.joint_step [--repeats 3] [--threads 1] [--json FILE] [--profile]
                                    [--variants plain bf16 bf16-compiled]

Variants of the same step: ``plain`` (``benchmarks/baseline.py``), ``fp32`` and ``bf16`` (this
project's own, ``benchmarks/steps.py``), and these with unmodified diffusers blocks in the denoiser,
with the batch in shares of one image, and with gradient checkpointing; if named, also compiled,
which takes minutes before the first step. Each runs in a process of its own, one after the other,
so that its peak memory is its own; every repeat runs all of them, in a rotated order, and ratios
are taken within a repeat. What the processor reaches in a large convolution or matrix product alone
is measured in the same repeat: the floor of any step is its FLOPs at the better of both rates.
"""

import argparse
import functools
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.steps import EVERY_VARIANT, SIZES, USUAL_VARIANTS, build_step
from pipeline.device import prepare_torch

MIB = 2**20
WARM_UP = 2
"""Steps that are not timed: the second one is the first beside Adam's moments, in new memory."""
QUANTITIES = {
    "seconds": "seconds",
    "processor s": "processor_seconds",
    "MiB before": "before_mib",
    "MiB at most": "peak_mib",
}


def main() -> None:
    """Read the command line; measure, or be one of the measured processes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.joint_step")
    parser.add_argument("--repeats", type=int, default=3, help="runs of every variant")
    parser.add_argument("--steps", type=int, default=3, help="timed steps a run, after two more")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--size", choices=SIZES, default="paper")
    parser.add_argument("--json", type=Path, help="where to write every number")
    parser.add_argument("--profile", action="store_true", help="time by kind of operation")
    parser.add_argument("--variants", nargs="+", choices=EVERY_VARIANT, default=USUAL_VARIANTS)
    parser.add_argument("--part", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        if arguments.part.endswith("plain"):
            torch.set_num_threads(arguments.threads)
        else:
            prepare_torch(arguments.threads)
        print(json.dumps(PARTS[arguments.part](arguments)))
        return
    result = measure(arguments)
    show(result)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the numbers of every repeat, the FLOPs of a step and, if wanted, the profiles."""
    variants = ["plain", *(name for name in arguments.variants if name != "plain")]
    repeats: list[dict[str, Any]] = []
    for number in range(arguments.repeats):
        turn = number % len(variants)
        order = (*variants[turn:], *variants[:turn])
        repeats.append({part: _in_own_process(part, arguments) for part in (*order, "machine")})
    result: dict[str, Any] = {
        "size": arguments.size,
        "threads": arguments.threads,
        "torch": torch.__version__,
        "processor": torch.cpu.get_capabilities().get("cpu_name"),
        "flops": _in_own_process("flops", arguments)["flops"],
        "repeats": repeats,
    }
    if arguments.profile:
        result["profile"] = {
            name: _in_own_process(f"profile_{name}", arguments) for name in variants
        }
    return result


def _in_own_process(part: str, arguments: argparse.Namespace) -> dict[str, Any]:
    options = ("size", "steps", "threads")
    command = [sys.executable, "-m", "benchmarks.joint_step", "--part", part]
    command += [f"--{name}={getattr(arguments, name)}" for name in options]
    environment = os.environ | {"OMP_NUM_THREADS": str(arguments.threads)}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    values: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return values


def _time_and_memory(arguments: argparse.Namespace) -> dict[str, Any]:
    step = build_step(arguments.part, SIZES[arguments.size])
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    before = pages * resource.getpagesize() / MIB
    for _ in range(WARM_UP):
        step()
    seconds, processor_seconds, loss = [], [], 0.0
    for _ in range(arguments.steps):
        begun, begun_processor = time.perf_counter(), time.process_time()
        loss = step()
        seconds.append(time.perf_counter() - begun)
        processor_seconds.append(time.process_time() - begun_processor)
    return {
        "seconds": statistics.median(seconds),
        "processor_seconds": statistics.median(processor_seconds),
        "before_mib": before,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / MIB,
        "loss": loss,
    }


def _flops(arguments: argparse.Namespace) -> dict[str, Any]:
    """Count the baseline's: the same convolutions and products in every variant."""
    step = build_step("plain", SIZES[arguments.size])
    with FlopCounterMode(display=False) as counter:
        step()
    return {"flops": counter.get_total_flops()}


def _machine(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what this processor reaches now, GFLOP/s of convolution and of matrix product."""
    side = 1024 if arguments.size == "paper" else 64
    rates: dict[str, float] = {}
    for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        matrix = torch.randn(side, side).to(kind)
        rates[f"{name} product"] = _rate(2 * side**3, matrix.matmul, matrix)
        images = torch.randn(2, 128, side // 16, side // 16).to(kind)
        kernel = torch.randn(128, 128, 3, 3).to(kind).to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
        flops = 2 * images.numel() * 128 * 9
        convolve = functools.partial(F.conv2d, weight=kernel, padding=1)
        rates[f"{name} convolution"] = _rate(flops, convolve, images)
    return rates


def _rate(flops: int, operation: Callable[[Any], Any], argument: Any) -> float:
    operation(argument)
    seconds = []
    for _ in range(10):
        begun = time.perf_counter()
        operation(argument)
        seconds.append(time.perf_counter() - begun)
    return flops / min(seconds) / 1e9


KINDS = {
    "convolution backward": ("convolution_backward", "conv2d_backward"),
    "convolution forward": ("mkldnn_convolution", "conv2d_forward"),
    "group norm": ("group_norm",),
    "SiLU": ("silu",),
    "attention": ("attention",),
    "linear": ("aten::mm", "addmm", "bmm"),
    "optimizer and average": ("_fused_adam", "addcdiv", "lerp", "sqrt"),
    "dropout draws": ("bernoulli", "random_", "aten::ge"),
    "memory copies": ("copy_", "aten::cat", "fill_", "zero_"),
    "sums, elementwise": ("aten::sum", "aten::mul", "aten::add", "aten::div"),
}
"""Parts of the names of operations; the first kind that fits is taken."""


def _profile(arguments: argparse.Namespace) -> dict[str, Any]:
    prepare_torch(arguments.threads)  # freed memory is kept
    size = SIZES[arguments.size]
    # What the profiler notes lies between the tensors and moves them to pages never used before:
    # the first touch of these takes as long as a fifth of a step, and no training sees it again.
    touched = torch.empty(size.memory, dtype=torch.uint8).fill_(0)
    guard = torch.empty(MIB, dtype=torch.uint8)  # behind it, so that it is not given back
    del touched
    step = build_step(arguments.part.removeprefix("profile_"), size)
    step()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step()
    del guard
    seconds = dict.fromkeys((*KINDS, "other"), 0.0)
    for event in profiler.key_averages():
        fits = (kind for kind, names in KINDS.items() if any(n in event.key for n in names))
        seconds[next(fits, "other")] += event.self_cpu_time_total / 1e6
    return seconds


def show(result: dict[str, Any]) -> None:
    """Print the tables."""
    console = Console()
    repeats, flops = result["repeats"], result["flops"]
    variants = [name for name in EVERY_VARIANT if name in repeats[0]]
    console.print(
        f"One joint step, {result['size']} networks, {result['threads']} threads,"
        f" {result['processor']}, {flops / 1e12:.2f} TFLOP a step"
    )
    table = Table("a step", *variants)  # medians, and of the ratios also the range
    for label, name in QUANTITIES.items():
        values = {v: statistics.median(r[v][name] for r in repeats) for v in variants}
        digits = 0 if name.endswith("mib") else 2
        table.add_row(label, *(f"{values[v]:.{digits}f}" for v in variants))
        if name != "before_mib":
            table.add_row("  x plain", *(_ratio(repeats, v, name) for v in variants))
    rates = {v: [flops / r[v]["seconds"] / 1e9 for r in repeats] for v in variants}
    table.add_row("GFLOP/s", *(f"{statistics.median(rates[v]):.0f}" for v in variants))
    shares = {
        v: [rate / _best(r["machine"], v) for rate, r in zip(rates[v], repeats, strict=True)]
        for v in variants
    }
    table.add_row("  of machine", *(f"{statistics.median(shares[v]):.0%}" for v in variants))
    console.print(table)
    machine = Table("machine alone", "GFLOP/s")
    for name in repeats[0]["machine"]:
        machine.add_row(name, f"{statistics.median(r['machine'][name] for r in repeats):.0f}")
    console.print(machine)
    if "profile" in result:
        kinds = Table("seconds of", *variants)
        for kind in result["profile"][variants[0]]:
            kinds.add_row(kind, *(f"{result['profile'][v][kind]:.2f}" for v in variants))
        console.print(kinds)


def _best(machine: dict[str, float], variant: str) -> float:
    """Return the highest rate of the machine in a variant's precision."""
    precision = "bf16" if variant.startswith("bf16") else "fp32"
    return max(rate for name, rate in machine.items() if name.startswith(precision))


def _ratio(repeats: list[dict[str, Any]], name: str, value: str) -> str:
    """Return the median and range of the ratios to plain, each within its repeat."""
    ratios = [repeat[name][value] / repeat["plain"][value] for repeat in repeats]
    return f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    **dict.fromkeys(EVERY_VARIANT, _time_and_memory),
    **{f"profile_{name}": _profile for name in EVERY_VARIANT},
    "flops": _flops,
    "machine": _machine,
}


if __name__ == "__main__":
    main()
