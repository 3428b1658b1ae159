"""The authors' released weight files (.pth), as users download them."""

import pickle
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from pipeline.config.methods import ReleasedWeights
from pipeline.config.restorers import RestorerSettings
from pipeline.models.build import build_restorer, giga_macs, parameter_count
from pipeline.models.weights import load_strictly, save_tensors
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import sha256_of, write_text
from pipeline.runtime.paths import LOG_FILE, MODEL_FILE, SNAPSHOTS_FILE, Run

RESTORER_PREFIX = "RestorationNet."
"""Before the names of the restorer's weights in a released file; it may hold the denoiser's too."""
PARALLEL_PREFIX = "module."
"""Before every name where a network was saved inside torch's DistributedDataParallel."""


def take_over(weights: ReleasedWeights, run: Run, restorer: RestorerSettings) -> None:
    """Write a released restorer as if it had been trained here, with an empty log, no snapshots.

    Args:
        weights: the .pth file, its expected hash, and its range of images.
        run: names the files to write.
        restorer: see ``load_released``.

    Raises:
        UserError: see ``load_released``.
    """
    network = load_released(weights, restorer)
    facts = {
        "task": run.task,
        "method": run.method,
        "method_settings": {"kind": "released", "sha256": weights.sha256},
        "restorer": asdict(restorer),
        "image_range": weights.image_range,
        "seed": run.seed,
        "parameters": parameter_count(network),
        "giga_macs_128": giga_macs(network),
    }
    save_tensors(run.training / MODEL_FILE, network.state_dict(), facts)
    save_tensors(run.training / SNAPSHOTS_FILE, {}, {})
    write_text(run.training / LOG_FILE, "step\n")


def load_released(weights: ReleasedWeights, restorer: RestorerSettings) -> nn.Module:
    """Return a released restorer.

    Args:
        weights: the .pth file and its expected hash.
        restorer: the network that the weights are of, ``unet_base`` for the paper's.

    Raises:
        UserError: the file is missing, has another hash, holds anything but tensors, or the
            weights of another network.
    """
    network = build_restorer(restorer)
    load_strictly(network, read_released(weights), Path(weights.file))
    return network


def read_released(weights: ReleasedWeights) -> dict[str, Tensor]:
    """Return the restorer's weights of a released file by their names below the restorer.

    Read with ``weights_only``: a pickle that would run code is refused.

    Raises:
        UserError: see ``load_released``, but for the network.
    """
    path = Path(weights.file)
    if not path.is_file():
        raise UserError(f"{path}: not found; download the authors' weights and name the file")
    found = sha256_of(path)
    if found != weights.sha256:
        raise UserError(
            f"{path}: its sha256 is {found}, expected {weights.sha256}; if this is the file you"
            " mean, set that hash (it stands for the file in dvc.lock)"
        )
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path}: not a file of weights alone: {reason}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: found {type(values).__name__}, expected names and tensors")
    tensors = {
        str(name).removeprefix(PARALLEL_PREFIX): value
        for name, value in values.items()
        if isinstance(value, Tensor)
    }
    chosen = {
        name.removeprefix(RESTORER_PREFIX): value
        for name, value in tensors.items()
        if name.startswith(RESTORER_PREFIX)
    }
    if not chosen:
        some = ", ".join(list(tensors)[:3]) or "no tensor"
        raise UserError(f"{path}: no weight is named {RESTORER_PREFIX}*, found {some}")
    return chosen
