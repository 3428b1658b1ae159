"""Synthetic pairs and real photographs as joint training batches."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.config.data import SyntheticDomain
from pipeline.config.learning import Train
from pipeline.degradations import degrade
from pipeline.images import Image, as_float
from pipeline.randomness import numpy_generator
from pipeline.store import ImageStore

SYMMETRIES = 8
"""Four rotations, each mirrored or not."""


@dataclass(frozen=True)
class Batch:
    """Crops of both domains, each (batch, 3, patch, patch) float32 in [0, 1].

    Gaussian noise drawn anew is not clipped, so ``synthetic`` may leave [0, 1].
    """

    synthetic: Tensor
    clean: Tensor
    real: Tensor

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on a device, in the memory order that convolutions like best."""
        move = {"device": device, "memory_format": torch.channels_last, "non_blocking": True}
        return Batch(**{name: value.to(**move) for name, value in vars(self).items()})


class JointCrops(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Random crops of both domains, unpaired with each other; sample n is the same in every run.

    Each domain is gone through in a new random order every epoch. Crop, symmetry and noise of a
    sample are drawn from (seed, domain, n) alone.
    """

    def __init__(
        self,
        synthetic: ImageStore,
        real: ImageStore,
        domain: SyntheticDomain,
        patch: int,
        seed: int,
    ) -> None:
        """Hold the stores.

        Raises:
            UserError: an image is smaller than the patch.
        """
        for store in (synthetic, real):
            store.require_size(patch)
        self.synthetic, self.real = synthetic, real
        self.domain, self.patch, self.seed = domain, patch, seed

    def __getitem__(self, sample: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return (synthetic, clean, real) of sample n, each (3, patch, patch)."""
        generator = numpy_generator(self.seed, "synthetic crop", sample)
        index = self._index("synthetic", len(self.synthetic), sample)
        roles = ["clean", "degraded"] if self.synthetic.has("degraded", index) else ["clean"]
        crops = self._crop(self.synthetic, index, roles, generator)
        clean = crops[0]
        degraded = crops[-1]
        if len(crops) == 1:
            degraded = degrade(clean, self.domain.degradation, generator)
        generator = numpy_generator(self.seed, "real crop", sample)
        index = self._index("real", len(self.real), sample)
        (real,) = self._crop(self.real, index, ["degraded"], generator)
        return _to_tensor(degraded), _to_tensor(clean), _to_tensor(real)

    def _index(self, name: str, images: int, sample: int) -> int:
        epoch, place = divmod(sample, images)
        return int(_order(self.seed, name, images, epoch)[place])

    def _crop(
        self, store: ImageStore, index: int, roles: list[str], generator: np.random.Generator
    ) -> list[Image]:
        top = int(generator.integers(store.heights[index] - self.patch + 1))
        left = int(generator.integers(store.widths[index] - self.patch + 1))
        symmetry = int(generator.integers(SYMMETRIES))
        rows, columns = slice(top, top + self.patch), slice(left, left + self.patch)
        return [
            transform(as_float(store.image(role, index)[rows, columns]), symmetry) for role in roles
        ]


def transform(image: Image, symmetry: int) -> Image:
    """Return one of the eight rotations and reflections of a (height, width, 3) image."""
    turned = np.rot90(image, symmetry % 4)
    return turned[:, ::-1] if symmetry >= 4 else turned


def batches(crops: JointCrops, train: Train, first_step: int, last_step: int) -> Iterator[Batch]:
    """Yield the batches of the steps after ``first_step`` up to ``last_step``, counted from 1."""
    samples = range(first_step * train.batch, last_step * train.batch)
    loader = DataLoader(
        crops,
        batch_size=train.batch,
        sampler=samples,
        num_workers=train.workers,
        persistent_workers=train.workers > 0,
        pin_memory=torch.cuda.is_available(),
    )
    for synthetic, clean, real in loader:
        yield Batch(synthetic, clean, real)


@functools.lru_cache(maxsize=4)
def _order(seed: int, name: str, images: int, epoch: int) -> NDArray[np.int64]:
    return numpy_generator(seed, f"{name} order", epoch).permutation(images)


def _to_tensor(image: Image) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
