"""Several processes that train as one: one a GPU, or on CPUs over gloo."""

import math
import os
import warnings
from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from pipeline.config.running import Train
from pipeline.runtime.errors import UserError
from pipeline.training.fabric import DDPStrategy, Fabric, LightningEnvironment
from pipeline.training.lost import end_with_leader, watch


def start_processes(settings: Train, updates: int) -> Fabric:
    """Return this process's place among all that train together; starts the others of its node.

    On one node they are started here, also inside a Slurm job of one task, as Snakemake submits it.
    In a job of several tasks ``srun`` has started them, one task a device, and each learns its rank
    from Slurm. Processes without GPUs talk through gloo. A training without updates writes first
    weights only, for which no others are started and no GPU is needed.

    Raises:
        UserError: there are fewer GPUs than asked for, or srun has not started as many tasks.
    """
    tasks = int(os.environ.get("SLURM_NTASKS", 1))
    started_by_srun = tasks > 1
    alone = updates == 0 and not started_by_srun
    devices, nodes = (1, 1) if alone else (settings.devices, settings.nodes)
    if started_by_srun and tasks != devices * nodes:
        raise UserError(
            f"SLURM_NTASKS: found {tasks}, expected {devices * nodes} = train.nodes {nodes} x"
            f" train.devices {devices}, a task for each process (srun --ntasks={devices * nodes})"
        )
    if nodes > 1 and not started_by_srun and "NODE_RANK" not in os.environ:
        raise UserError(
            f"train.nodes: found {nodes}, but nobody has started processes on other nodes; run the"
            f" stage by srun --nodes={nodes} --ntasks-per-node={devices} inside a job of Slurm"
        )
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
        strategy=_divided() if devices * nodes > 1 else "auto",
        plugins=[] if started_by_srun else [LightningEnvironment()],
    )
    fabric.launch()
    watch(fabric)
    if not started_by_srun:
        end_with_leader()
    torch.set_num_threads(settings.threads)  # launching has divided the processors its own way
    return fabric


def _divided() -> DDPStrategy:
    """Return DDP that adds gradients in the same order at every step.

    Else it sorts them anew after the first step of each start, and with more than two processes a
    training that was stopped would end with other last digits. Looking for unused parameters, of
    which there are none, is what keeps it from that.
    """
    warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
    return DDPStrategy(find_unused_parameters=True)


def require_same_step(fabric: Fabric, step: int) -> None:
    """Refuse to go on from another step than other processes do.

    Raises:
        UserError: on every process.
    """
    if fabric.world_size == 1:
        return
    steps = fabric.all_gather(torch.tensor(step, device=fabric.device)).tolist()  # type: ignore[union-attr]
    if len(set(steps)) > 1:
        raise UserError(
            f"processes go on from different steps, {steps}: set PIPELINE_CHECKPOINTS to a folder"
            " that all nodes see, or to none of them"
        )


def squared_norms(norms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the squares, which add up over shares as norms do not."""
    return {name: norm.square() for name, norm in norms.items()}


def mean_terms(
    fabric: Fabric, shares: list[dict[str, Tensor]], norms: Collection[str] = ()
) -> dict[str, float]:
    """Return the mean of every term over the shares of a step and over all processes.

    Args:
        fabric: the processes.
        shares: the terms of each share; of the gradient norms the squares.
        norms: names of gradient norms. Returned is the norm of the whole batch's gradient: shares
            add up, of the processes' own gradients the mean is taken.
    """
    names = list(shares[0])
    stacked = torch.stack(
        [torch.stack([s[name].detach().float() for name in names]) for s in shares]
    )
    mean = stacked.mean(dim=0)
    if fabric.world_size > 1:
        mean = fabric.all_reduce(mean, reduce_op="mean")  # type: ignore[assignment]
    found = dict(zip(names, mean.tolist(), strict=True))
    whole = len(shares) / fabric.world_size
    return found | {name: math.sqrt(found[name] * whole) for name in norms}


def any_process(fabric: Fabric, asked: bool) -> bool:
    """Return whether any process was asked: all must stop at the same step."""
    if fabric.world_size == 1:
        return asked
    asked_here = torch.tensor(float(asked), device=fabric.device)
    return bool(fabric.all_reduce(asked_here, reduce_op="sum"))
