"""Several processes that train as one: one a GPU, or on CPUs over gloo."""

import os

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from torch import Tensor

from pipeline.config.learning import Train
from pipeline.errors import UserError


def start_processes(settings: Train, updates: int) -> Fabric:
    """Return this process's place among all that train together; starts the others of its node.

    On one node they are started here, also inside a Slurm job of one task, as Snakemake submits it.
    In a job of several tasks ``srun`` has started them, one task a device, and each learns its rank
    from Slurm. Processes without GPUs talk through gloo. A training without updates writes first
    weights only, for which no others are started and no GPU is needed.

    Raises:
        UserError: there are fewer GPUs than asked for.
    """
    started_by_srun = int(os.environ.get("SLURM_NTASKS", 1)) > 1
    alone = updates == 0 and not started_by_srun
    devices, nodes = (1, 1) if alone else (settings.devices, settings.nodes)
    found = 0 if alone else torch.cuda.device_count()
    if found and devices > found:
        raise UserError(
            f"train.devices: found {devices}, but this node has {found} GPUs; set"
            f" train.devices={found} and, for the same memory a GPU, a larger train.accumulate"
        )
    fabric = Fabric(
        accelerator="cuda" if found else "cpu",
        devices=devices,
        num_nodes=nodes,
        strategy="ddp" if devices * nodes > 1 else "auto",
        plugins=[] if started_by_srun else [LightningEnvironment()],
    )
    fabric.launch()
    torch.set_num_threads(settings.threads)  # launching has divided the processors its own way
    return fabric


def mean_terms(fabric: Fabric, shares: list[dict[str, Tensor]]) -> dict[str, float]:
    """Return the mean of every term over the shares of a step and over all processes."""
    names = list(shares[0])
    stacked = torch.stack(
        [torch.stack([s[name].detach().float() for name in names]) for s in shares]
    )
    mean = stacked.mean(dim=0)
    if fabric.world_size > 1:
        mean = fabric.all_reduce(mean, reduce_op="mean")  # type: ignore[assignment]
    return dict(zip(names, mean.tolist(), strict=True))


def any_process(fabric: Fabric, asked: bool) -> bool:
    """Return whether any process was asked: all must stop at the same step."""
    if fabric.world_size == 1:
        return asked
    asked_here = torch.tensor(float(asked), device=fabric.device)
    return bool(fabric.all_reduce(asked_here, reduce_op="sum"))
