"""Restore whole photographs: padding, overlapping tiles, bounded memory."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.config.checks import build
from pipeline.config.learning import Evaluate, Restorer
from pipeline.device import Precision, autocast, choose_precision, prepare_torch
from pipeline.images import Image, from_range, to_range
from pipeline.models.build import build_restorer
from pipeline.models.weights import load_strictly, load_tensors
from pipeline.tiling import starts


def load_model(path: Path, settings: Evaluate) -> Callable[[Image], Image]:
    """Return a function that restores images with a trained model, on a GPU if there is one.

    Raises:
        UserError: the file is missing, damaged, or holds other weights than its facts say.
    """
    prepare_torch(settings.threads)
    precision = choose_precision(settings.precision)
    tensors, facts = load_tensors(path)
    restorer = build_restorer(build(Restorer, facts["restorer"], f"{path}: restorer"))
    load_strictly(restorer, tensors, path)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    restorer = restorer.eval().to(device).to(memory_format=torch.channels_last)
    network = InRange(restorer, tuple(facts["image_range"]))
    return lambda image: restore(network, image, settings.tile, settings.tile_overlap, precision)


class InRange(nn.Module):
    """A restorer of images in [0, 1], whatever range its network works in."""

    def __init__(self, restorer: nn.Module, image_range: tuple[float, float]) -> None:
        super().__init__()
        self.restorer, self.image_range = restorer, image_range
        self.factor = restorer.factor

    def forward(self, degraded: Tensor) -> Tensor:
        """Return the restored images, (batch, 3, height, width) like the degraded ones."""
        restored = self.restorer(to_range(degraded, self.image_range))
        return from_range(restored.float(), self.image_range)


def restore(
    restorer: nn.Module, image: Image, tile: int, overlap: int, precision: Precision
) -> Image:
    """Return the restored image, (height, width, 3) float32, not clamped.

    An image larger than ``tile`` is restored in tiles that overlap by ``overlap`` pixels; where
    they do, their mean is taken with weights that fall linearly towards each tile's border. So
    no seam shows, and memory depends on the tile, not on the image.

    Args:
        restorer: with an attribute ``factor``, of which both sides must be multiples.
        image: (height, width, 3) float32 RGB in [0, 1].
        tile: side of a tile in pixels.
        overlap: pixels shared by neighbouring tiles, less than ``tile``.
        precision: of the multiplications.
    """
    device = next(restorer.parameters()).device
    height, width, _ = image.shape
    if max(height, width) <= tile:
        return _restore_tile(restorer, image, precision, device)
    total = np.zeros_like(image)
    weights = np.zeros((height, width, 1), np.float32)
    for top in starts(height, tile, tile - overlap):
        for left in starts(width, tile, tile - overlap):
            place = (slice(top, top + tile), slice(left, left + tile))
            restored = _restore_tile(restorer, image[place], precision, device)
            weight = _tile_weight(place, image, overlap)
            total[place] += restored * weight
            weights[place] += weight
    return total / weights


@torch.inference_mode()
def _restore_tile(
    restorer: nn.Module, image: Image, precision: Precision, device: torch.device
) -> Image:
    tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None].to(device)
    padded = _pad(tensor, int(restorer.factor))  # type: ignore[arg-type]
    with autocast(device, precision):
        restored: Tensor = restorer(padded)
    cropped = restored[0, :, : image.shape[0], : image.shape[1]]
    result: Image = cropped.float().cpu().numpy().transpose(1, 2, 0)
    return result


def _pad(tensor: Tensor, factor: int) -> Tensor:
    down, right = (-side % factor for side in tensor.shape[-2:])
    # a mirror image needs more pixels than it adds; a tiny image repeats its last ones instead
    mirrored = down < tensor.shape[-2] and right < tensor.shape[-1]
    return F.pad(tensor, (0, right, 0, down), mode="reflect" if mirrored else "replicate")


def _tile_weight(place: tuple[slice, slice], image: Image, overlap: int) -> Image:
    vertical, horizontal = (
        _ramp(part.start, min(part.stop, side), side, overlap)
        for part, side in zip(place, image.shape[:2], strict=True)
    )
    return (vertical[:, None] * horizontal[None, :])[..., None]


def _ramp(start: int, stop: int, side: int, overlap: int) -> Image:
    """Return weights that fall towards the tile's borders, but not towards the image's own."""
    position = np.arange(start, stop)
    distance = np.full(stop - start, np.inf)
    if start > 0:
        distance = np.minimum(distance, position - start + 1)
    if stop < side:
        distance = np.minimum(distance, stop - position)
    return np.minimum(distance / (overlap + 1), 1).astype(np.float32)
