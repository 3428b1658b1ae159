"""PSNR of a few fixed crops while training goes on.

Nothing is chosen by it: the last weights are evaluated.

The crops come from test images (``validation.h5``, made by the stage synthesize): of the real
domain, where a clean version exists, and of the same scenes degraded as the synthetic domain is.
"""

import torch
from torch import Tensor, nn

from pipeline.device import Precision, autocast
from pipeline.images.store import ImageStore

SNAPSHOTS = 4
"""Of the first crop of each domain the restored version is kept so many times a training."""


class Validation:
    """The crops of each domain, and what a restorer makes of them."""

    def __init__(self, store: ImageStore, image_range: tuple[float, float], factor: int) -> None:
        """Read the crops, cut so that both sides are multiples of ``factor``."""
        self.black, white = image_range
        self.span = white - self.black
        self.pairs: dict[str, list[tuple[Tensor, Tensor]]] = {}
        for index, domain in enumerate(store.data_sets):
            pair = tuple(_cut(store, role, index, factor) for role in ("degraded", "clean"))
            self.pairs.setdefault(domain, []).append(pair)  # type: ignore[arg-type]

    @torch.inference_mode()
    def __call__(
        self, restorer: nn.Module, device: torch.device, precision: Precision
    ) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Return what the restorer makes of the crops.

        Returns:
            ``psnr_<domain>``: mean over the crops, dB, all colours, not rounded to 8 bits; and of
            the first crop of each domain the restored version, (3, height, width) uint8.
        """
        scores, first = {}, {}
        for domain, pairs in self.pairs.items():
            psnr = []
            for number, (degraded, clean) in enumerate(pairs):
                given = degraded.to(device, torch.float32)[None] / 255 * self.span + self.black
                with autocast(device, precision):
                    made = restorer(given)
                restored = ((made[0].float() - self.black) / self.span).clamp(0, 1).cpu()
                error = (restored - clean.float() / 255).square().mean()
                psnr.append(-10 * torch.log10(error.clamp(min=1e-10)).item())
                if number == 0:
                    first[domain] = (restored * 255).round().to(torch.uint8)
            scores[f"psnr_{domain}"] = sum(psnr) / len(psnr)
        return scores, first


def snapshot_steps(first_step: int, last_step: int, every: int) -> set[int]:
    """Return at which of the validated steps of a training the restored crops are kept."""
    validated = [*range(every * (first_step // every + 1), last_step, every), last_step]
    count = min(SNAPSHOTS, len(validated))
    return {validated[(len(validated) - 1) * n // max(count - 1, 1)] for n in range(count)}


def _cut(store: ImageStore, role: str, index: int, factor: int) -> Tensor:
    image = store.image(role, index)
    height, width = (side // factor * factor for side in image.shape[:2])
    return torch.from_numpy(image[:height, :width].copy()).permute(2, 0, 1)
