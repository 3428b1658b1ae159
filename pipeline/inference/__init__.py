"""A trained restorer at work: whole images, photographs of users, ONNX, the model card.

From Python:

    from pipeline.inference import load

    restore = load("model.safetensors")
    out = restore(array)
"""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pipeline.inference.arrays import ArrayRestorer


def load(
    model: str | Path,
    tile: int = 512,
    overlap: int = 64,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
    threads: int | None = None,
) -> "ArrayRestorer":
    """Return what restores images that are NumPy arrays, on a GPU if there is one.

    Args:
        model: a model.safetensors, or a run below data/models as denoise/noise_space-0.
        tile: side in pixels; larger images are restored in tiles, so memory stays bounded.
        overlap: pixels that neighbouring tiles share, at most half of ``tile``.
        precision: of the multiplications.
        threads: of the processor; None takes all.

    Raises:
        UserError: no model, a damaged one, or a setting out of range.
    """
    from pipeline.inference.arrays import load_array_restorer  # imports torch

    return load_array_restorer(model, tile, overlap, precision, threads)
