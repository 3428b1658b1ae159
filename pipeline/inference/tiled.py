"""Restore whole photographs: padding, overlapping tiles, bounded memory."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.device import Precision, autocast
from pipeline.images.pixels import Image
from pipeline.images.tiles import aligned_tiles


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
    bands = restore_rows(
        restorer, lambda rows: image[rows], image.shape[:2], tile, overlap, precision
    )
    return np.concatenate(list(bands))


def restore_rows(
    restorer: nn.Module,
    read: Callable[[slice], Image],
    size: tuple[int, int],
    tile: int,
    overlap: int,
    precision: Precision,
) -> Iterator[Image]:
    """Yield the restored image of ``restore`` in bands of rows, from top to bottom.

    So a photograph can be restored that would not fit into memory as numbers: at any time there
    are two bands of ``tile`` rows, not the whole.

    Args:
        restorer: as in ``restore``.
        read: gives rows of the degraded image, float32 in [0, 1], in order from the top.
        size: height and width of the image.
        tile: as in ``restore``.
        overlap: as in ``restore``.
        precision: as in ``restore``.
    """
    height, width = size
    tiles = aligned_tiles(height, tile, overlap, int(restorer.factor))  # type: ignore[arg-type]
    # sums that the next band of tiles adds to, and the weights in them
    open_sum = np.zeros((0, width, 3), np.float32)
    open_weights = np.zeros((0, 1, 1), np.float32)
    next_tops = [*(rows.start for rows in tiles[1:]), height]
    for rows, next_top in zip(tiles, next_tops, strict=True):
        weights = _ramp(rows.start, rows.stop, height, overlap)[:, None, None]
        band = _restore_band(restorer, read(rows), tile, overlap, precision)
        band *= weights
        band[: len(open_sum)] += open_sum
        weights[: len(open_weights)] += open_weights
        done = next_top - rows.start
        open_sum, open_weights = band[done:].copy(), weights[done:]
        band[:done] /= weights[:done]
        yield band[:done]
        del band  # before the next is made


def _restore_band(
    restorer: nn.Module, rows: Image, tile: int, overlap: int, precision: Precision
) -> Image:
    """Return restored rows, no more than ``tile``, blended along the width only."""
    device = next(restorer.parameters()).device
    width = rows.shape[1]
    total = np.zeros_like(rows, np.float32)
    weights = np.zeros((width, 1), np.float32)
    for columns in aligned_tiles(width, tile, overlap, int(restorer.factor)):  # type: ignore[arg-type]
        weight = _ramp(columns.start, columns.stop, width, overlap)[:, None]
        total[:, columns] += _restore_tile(restorer, rows[:, columns], precision, device) * weight
        weights[columns] += weight
    total /= weights
    return total


def _restore_tile(
    restorer: nn.Module, image: Image, precision: Precision, device: torch.device
) -> Image:
    restored: Image = restore_batch(restorer, image[None], precision, device)[0]
    return restored


@torch.inference_mode()
def restore_batch(
    restorer: nn.Module, images: Image, precision: Precision, device: torch.device
) -> Image:
    """Return (batch, height, width, 3) restored without tiles."""
    tensor = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))).to(device)
    padded = _pad(tensor, int(restorer.factor))  # type: ignore[arg-type]
    with autocast(device, precision):
        restored: Tensor = restorer(padded)
    cropped = restored[..., : images.shape[1], : images.shape[2]]
    result: Image = cropped.float().cpu().numpy().transpose(0, 2, 3, 1)
    return result


def _pad(tensor: Tensor, factor: int) -> Tensor:
    """Fill both sides up to a multiple of the factor by repeating the last pixels, as released."""
    down, right = (-side % factor for side in tensor.shape[-2:])
    return F.pad(tensor, (0, right, 0, down), mode="replicate")


def _ramp(start: int, stop: int, side: int, overlap: int) -> Image:
    """Return weights that fall towards the tile's borders, but not towards the image's own."""
    position = np.arange(start, stop)
    distance = np.full(stop - start, np.inf)
    if start > 0:
        distance = np.minimum(distance, position - start + 1)
    if stop < side:
        distance = np.minimum(distance, stop - position)
    return np.minimum(distance / (overlap + 1), 1).astype(np.float32)
