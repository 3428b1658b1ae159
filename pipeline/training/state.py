"""All that a training saves, under a name for everything that decides its result.

So a checkpoint of another configuration, other data or other code is never found.
"""

import hashlib
import inspect
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.methods.method import Method
from pipeline.models.weights import load_strictly, load_tensors, save_tensors
from pipeline.runtime import CHANGES_NO_RESULT
from pipeline.runtime.errors import UserError
from pipeline.training.average import MovingAverage
from pipeline.training.log import TrainingLog

LIBRARIES = {"PIL": "pillow", "deepinv": "deepinv", "diffusers": "diffusers", "numpy": "numpy",
             "scipy": "scipy", "spandrel": "spandrel", "torch": "torch"}  # fmt: skip
"""Modules whose networks, draws and sums decide a result, and the distributions they come in."""


@dataclass
class TrainingState:
    """Networks, moving average, optimizers, counter and log of one training."""

    method: Method
    average: MovingAverage
    optimizers: dict[str, torch.optim.Optimizer]
    log: TrainingLog
    step: int = 0
    snapshots: dict[str, Tensor] = field(default_factory=dict)
    """``<domain>.<step>``: restored crops, (3, height, width) uint8."""

    def save(self, path: Path) -> None:
        """Write everything into one safetensors file, whole or not at all."""
        tensors = {f"networks.{name}": value for name, value in self._networks().items()}
        tensors |= {f"average.{name}": value for name, value in self._average().items()}
        tensors |= {f"snapshots.{name}": value for name, value in self.snapshots.items()}
        for name, optimizer in self.optimizers.items():
            for index, values in optimizer.state_dict()["state"].items():
                for key, value in values.items():
                    tensors[f"optimizers.{name}.{index}.{key}"] = value
        facts = {"step": self.step, "log": vars(self.log)}
        save_tensors(path, tensors, facts)

    def keep_snapshots(self, restored: dict[str, Tensor]) -> None:
        """Keep restored crops of this step, one of each domain."""
        self.snapshots |= {f"{domain}.{self.step}": crop for domain, crop in restored.items()}

    def require_finite(self, checkpoint: Path) -> None:
        """Refuse to go on with, or to keep, weights that are not finite.

        Raises:
            UserError: names the step, the weights and the last good checkpoint.
        """
        for name, value in {**self._networks(), **self._average()}.items():
            if not value.isfinite().all():
                saved = (
                    f"last good checkpoint: {checkpoint}" if checkpoint.is_file() else "none saved"
                )
                raise UserError(
                    f"step {self.step}: the update made {name} not finite ({saved});"
                    " lower train.learning_rate or set train.clip_norm"
                )

    def load(self, path: Path) -> None:
        """Go on where a state of the same method was saved.

        Raises:
            UserError: the file is damaged or belongs to other networks.
        """
        tensors, facts = load_tensors(path)
        self._load_networks(path, tensors)
        self._load_restorer_average(path, tensors)
        for name in self.optimizers:
            self._load_optimizer(name, tensors)
        self.snapshots = _below(tensors, "snapshots.")
        self.step = facts["step"]
        self.log = TrainingLog(**facts["log"])

    def load_restorer(self, path: Path) -> None:
        """Start from the restorer of another training: its weights, average and optimizer.

        Raises:
            UserError: the file is damaged or belongs to another restorer.
        """
        tensors, facts = load_tensors(path)
        prefix = "networks.restorer."
        load_strictly(self.method.restorer, _below(tensors, prefix), path)
        self._load_restorer_average(path, tensors)
        self._load_optimizer("restorer", tensors)
        self.step = facts["step"]
        self.log = TrainingLog(**facts["log"])

    def _networks(self) -> dict[str, Tensor]:
        return dict(self.method.state_dict())

    def _average(self) -> dict[str, Tensor]:
        return dict(self.average.state_dict())

    def _load_networks(self, path: Path, tensors: dict[str, Tensor]) -> None:
        load_strictly(self.method, _below(tensors, "networks."), path)

    def _load_restorer_average(self, path: Path, tensors: dict[str, Tensor]) -> None:
        load_strictly(self.average, _below(tensors, "average."), path)

    def _load_optimizer(self, name: str, tensors: dict[str, Tensor]) -> None:
        state: dict[int, dict[str, Tensor]] = {}
        for key, value in _below(tensors, f"optimizers.{name}.").items():
            index, entry = key.split(".", 1)
            parameter = self.optimizers[name].param_groups[0]["params"][int(index)]
            if value.shape == parameter.shape:
                # the fused optimizer walks memory, so moments must lie in the parameter's order
                value = torch.empty_like(parameter).copy_(value)
            state.setdefault(int(index), {})[entry] = value
        groups = self.optimizers[name].state_dict()["param_groups"]
        self.optimizers[name].load_state_dict({"state": state, "param_groups": groups})


def fingerprint(facts: Mapping[str, Any]) -> str:
    """Return a name for everything that decides a training's result.

    Args:
        facts: configuration and digests of the data, as JSON can hold them.

    Adds the source of every module of this project that is loaded, the versions of the libraries
    that are, and the processor's instruction set.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name in sorted(sys.modules):
        _, _, inside = name.partition("pipeline.")
        if name.startswith("pipeline.") and inside.split(".")[0] not in CHANGES_NO_RESULT:
            digest.update(inspect.getsource(sys.modules[name]).encode())
    versions = [f"{name} {version(of)}" for name, of in LIBRARIES.items() if name in sys.modules]
    digest.update(" ".join([*versions, torch.backends.cpu.get_cpu_capability()]).encode())
    return digest.hexdigest()[:16]


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
