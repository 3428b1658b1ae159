"""Two processes against one: the gradients of a joint step, and a training on two cards."""

import multiprocessing
import os
import socket
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.nn.parallel import DistributedDataParallel

from benchmarks.gpu.setup import Findings, Row, Setup
from benchmarks.gpu.waiting import in_own_process
from benchmarks.steps import AT_FULL_WEIGHT, SIZES, random_batch
from pipeline.datasets.batches import Batch
from pipeline.device import prepare_torch, use_precision
from pipeline.methods.method import build_method
from pipeline.models.build import build_restorer

ALLOWED = 1e-4
"""Of the relative difference of gradients in fp32: sums in another order."""


def measure(setup: Setup, before: Findings) -> Iterator[Row]:
    """Yield how far gradients averaged over two processes are from those of one.

    Two ranks share one card through gloo; NCCL wants a card for each.
    """
    ways: list[tuple[str, list[str]]] = [("gloo", [setup.device, setup.device])]
    if torch.cuda.device_count() > 1:
        ways.append(("nccl", ["cuda:0", "cuda:1"]))
    seconds = setup.left()
    one = in_own_process(gradient, setup.size, 0, [setup.device], "gloo", 0, seconds=seconds)
    for backend, devices in ways:
        two = _two(setup, devices, backend)
        error = float(np.linalg.norm(two - one) / np.linalg.norm(one))
        yield {"processes": f"two through {backend} on {' and '.join(sorted(set(devices)))}",
               "gradient's relative difference from one process": error,
               "failed": not error <= ALLOWED}  # fmt: skip


def _two(setup: Setup, devices: list[str], backend: str) -> NDArray[np.float32]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    context = multiprocessing.get_context("spawn")
    other = context.Process(target=gradient, args=(setup.size, 1, devices, backend, port))
    other.start()
    try:
        found: NDArray[np.float32] = in_own_process(
            gradient, setup.size, 0, devices, backend, port, seconds=setup.left()
        )
    finally:
        other.kill()
        other.join()
    return found


def gradient(
    size_name: str, rank: int, devices: list[str], backend: str, port: int
) -> NDArray[np.float32]:
    """Return the gradient of one joint step of all ranks, as one vector on the processor."""
    prepare_torch(1)
    use_precision("fp32")
    world, device = len(devices), torch.device(devices[rank])
    # linear in the images: else the hinge of halves is not that of the whole
    size = replace(SIZES[size_name], batch=4)
    settings = replace(size.method, margin=5.0, denoiser=replace(size.denoiser, dropout=0.0))
    torch.manual_seed(0)
    method = build_method(build_restorer(size.restorer), settings)
    method.to(device).to(memory_format=torch.channels_last)
    module: torch.nn.Module = method
    if world > 1:
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        if device.type == "cuda":
            torch.cuda.set_device(device)
        dist.init_process_group(backend, rank=rank, world_size=world)
        module = DistributedDataParallel(method, find_unused_parameters=True)
    batch = random_batch(size)
    draws = method.draw(torch.Generator().manual_seed(0), tuple(batch.clean.shape))
    assert draws is not None
    place = slice(rank * size.batch // world, (rank + 1) * size.batch // world)
    part = Batch(batch.synthetic[place], batch.clean[place], batch.real[place])
    terms = module(part.to(device, (0, 1)), draws.part(place).to(device), AT_FULL_WEIGHT)
    terms["total"].backward()
    found = torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None])
    values: NDArray[np.float32] = found.cpu().numpy()
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()
    return values
