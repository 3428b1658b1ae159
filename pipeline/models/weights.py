"""Weights and training states as safetensors: nothing unpickled, same content, same bytes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.runtime.errors import UserError
from pipeline.runtime.files import replacing


def save_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and plain facts as safetensors; same content, same bytes.

    Raises:
        UserError: the file cannot be written; what was there before is kept.
    """
    contiguous = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    with replacing(path) as partial:
        try:
            # one entry only: the library writes several in no fixed order
            save_file(contiguous, partial, metadata={"facts": json.dumps(facts)})
        except SafetensorError as error:
            raise UserError(
                f"{path}: cannot be written ({error}); free some disk space and run the same"
                " command again"
            ) from None


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and facts of a file written by ``save_tensors``.

    Raises:
        UserError: the file is missing or damaged.
    """
    if not path.is_file():
        raise UserError(f"{path}: not found; 'dvc repro' or 'dvc checkout' makes it")
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["facts"])
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{path}: damaged or not written by this project ({error})") from None


def load_strictly(module: nn.Module, values: dict[str, Tensor], path: Path) -> None:
    """Load weights that must fit the module exactly.

    Raises:
        UserError: a name or a shape differs.
    """
    try:
        module.load_state_dict(values)
    except RuntimeError as error:
        lines = " ".join(str(error).split())
        raise UserError(f"{path}: weights of another network: {lines[:200]}") from None
