"""Synthetic pairs and real photographs as joint training batches."""

import functools
import multiprocessing
import signal
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from pipeline.config.running import Train
from pipeline.config.tasks import SyntheticDomain
from pipeline.degradations import degrade
from pipeline.images.pixels import Image, as_float, to_range
from pipeline.images.store import ImageStore
from pipeline.randomness import numpy_generator
from pipeline.runtime.errors import UserError
from pipeline.workflow.stage import end_with_parent

SYMMETRIES = 8
"""Four rotations, each mirrored or not."""
PREFETCHED = 4
"""Shares that each loader process reads ahead."""
START_METHOD = "fork"
"""Loader processes inherit blocked signals and mapped stores; unasked, Python 3.14 would not."""
TRAINING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""Ask a training to save and stop; the last is Slurm's warning."""


@dataclass(frozen=True)
class Batch:
    """Crops of both domains, each (batch, 3, patch, patch) float32 in [0, 1].

    Gaussian noise drawn anew is not clipped, so ``synthetic`` may leave [0, 1]. ``unpaired`` are
    clean crops of other images, ``truth`` the clean versions of ``real``, each for methods that
    want them, else None. ``span`` is white minus black: what a difference of pixels is divided by
    where its loss shall weigh the same in every range.
    """

    synthetic: Tensor
    clean: Tensor
    real: Tensor
    unpaired: Tensor | None = None
    truth: Tensor | None = None
    span: float = field(default=1.0, kw_only=True)

    def to(self, device: torch.device, image_range: tuple[float, float]) -> "Batch":
        """Return the batch on a device, in the memory order that convolutions like best.

        Args:
            device: where to.
            image_range: black and white there; [0, 1] is mapped onto it.
        """
        images = {name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        moved: dict[str, Any] = {}
        for name, value in images.items():
            there = value.to(device, memory_format=torch.channels_last, non_blocking=True)
            moved[name] = to_range(there, image_range)
        black, white = image_range
        return Batch(**moved, span=white - black)


class JointCrops(Dataset[tuple[Tensor, ...]]):
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
        unpaired: ImageStore | None = None,
        truth: ImageStore | None = None,
    ) -> None:
        """Hold the stores; ``unpaired`` and ``truth`` only for methods that want them.

        Raises:
            UserError: an image is smaller than the patch, or ``truth`` is not that of ``real``.
        """
        for store in (synthetic, real, unpaired):
            if store is not None:
                store.require_size(patch)
        if truth is not None and truth.ids != real.ids:
            raise UserError(
                f"{truth.path}: found the truth of {len(truth)} images, expected that of all"
                f" {len(real)} in {real.path}; only simulated real photographs have one"
            )
        self.synthetic, self.real, self.unpaired, self.truth = synthetic, real, unpaired, truth
        self.domain, self.patch, self.seed = domain, patch, seed

    def __getitem__(self, sample: int) -> tuple[Tensor, ...]:
        """Return the images of sample n in the order of ``Batch``, each (3, patch, patch)."""
        generator = numpy_generator(self.seed, "synthetic crop", sample)
        index = self._index("synthetic", len(self.synthetic), sample)
        roles = ["clean", "degraded"] if self.synthetic.has("degraded", index) else ["clean"]
        crops = self._crop([(self.synthetic, role) for role in roles], index, generator)
        clean = crops[0]
        degraded = crops[-1]
        if len(crops) == 1:
            if self.domain.degradation is None:  # the configuration was checked against it
                raise UserError(f"{self.synthetic.path}: no degraded images and no degradation")
            degraded = degrade(clean, self.domain.degradation, generator)
        generator = numpy_generator(self.seed, "real crop", sample)
        index = self._index("real", len(self.real), sample)
        wanted = [(self.real, "degraded")]
        if self.truth is not None:
            wanted.append((self.truth, "clean"))
        real, *truth = self._crop(wanted, index, generator)
        images = [degraded, clean, real]
        if self.unpaired is not None:
            generator = numpy_generator(self.seed, "unpaired crop", sample)
            index = self._index("unpaired", len(self.unpaired), sample)
            images += self._crop([(self.unpaired, "clean")], index, generator)
        return tuple(_to_tensor(image) for image in [*images, *truth])

    def batch(self, images: Sequence[Tensor]) -> Batch:
        """Return stacked images, in the order in which a sample has them, by name."""
        extra = {"unpaired": self.unpaired, "truth": self.truth}
        held = [name for name, store in extra.items() if store is not None]
        names = ["synthetic", "clean", "real", *held]
        named: dict[str, Any] = dict(zip(names, images, strict=True))
        return Batch(**named)

    def _index(self, name: str, images: int, sample: int) -> int:
        epoch, place = divmod(sample, images)
        return int(_order(self.seed, name, images, epoch)[place])

    def _crop(
        self, wanted: list[tuple[ImageStore, str]], index: int, generator: np.random.Generator
    ) -> list[Image]:
        """Return the same random part of one image in several stores and roles."""
        store = wanted[0][0]
        top = int(generator.integers(store.heights[index] - self.patch + 1))
        left = int(generator.integers(store.widths[index] - self.patch + 1))
        symmetry = int(generator.integers(SYMMETRIES))
        rows, columns = slice(top, top + self.patch), slice(left, left + self.patch)
        return [
            transform(as_float(store.image(role, index)[rows, columns]), symmetry)
            for store, role in wanted
        ]


def transform(image: Image, symmetry: int) -> Image:
    """Return one of the eight rotations and reflections of a (height, width, 3) image."""
    turned = np.rot90(image, symmetry % 4)
    return turned[:, ::-1] if symmetry >= 4 else turned


@dataclass(frozen=True)
class Share:
    """The images that one process takes at once: part of its part of every batch."""

    settings: Train
    rank: int = 0

    @property
    def images(self) -> int:
        """Images of each domain in a share."""
        processes = self.settings.nodes * self.settings.devices
        return self.settings.batch // (processes * self.settings.accumulate)

    def place(self, number: int) -> slice:
        """Return which images of a batch the given share of this process holds."""
        first = (self.rank * self.settings.accumulate + number) * self.images
        return slice(first, first + self.images)


class _Samples(Sampler[int]):
    """The samples of one process, step after step."""

    def __init__(self, share: Share, first_step: int, last_step: int) -> None:
        self.share, self.first_step, self.last_step = share, first_step, last_step

    def __iter__(self) -> Iterator[int]:
        settings = self.share.settings
        for step in range(self.first_step, self.last_step):
            for number in range(settings.accumulate):
                place = self.share.place(number)
                begin = step * settings.batch
                yield from range(begin + place.start, begin + place.stop)


def batches(
    crops: JointCrops, share: Share, first_step: int, last_step: int
) -> Generator[Batch, None, None]:
    """Yield the shares of one process, of the steps after ``first_step`` up to ``last_step``.

    To be closed, as it may have loader processes. A step has ``accumulate`` shares; steps
    are counted from 1. Which images a step holds depends neither on the number of processes nor on
    that of shares.
    """
    workers = share.settings.workers
    loader = DataLoader(
        crops,
        batch_size=share.images,
        sampler=_Samples(share, first_step, last_step),
        num_workers=workers,
        multiprocessing_context=START_METHOD if workers else None,
        persistent_workers=workers > 0,
        prefetch_factor=PREFETCHED if workers else None,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_end_with_training,
    )
    # Loader processes inherit what is blocked. Slurm and a terminal signal all processes, and a
    # training whose loader dies of what asks it to save and stop cannot save.
    others = multiprocessing.active_children()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, TRAINING_SIGNALS)
    try:
        incoming = iter(loader)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        for images in incoming:
            yield crops.batch(images)
    finally:
        _kill([child for child in multiprocessing.active_children() if child not in others])


def _end_with_training(worker: int) -> None:
    """Else a loader notices after seconds that its training was killed, and holds its locks."""
    end_with_parent()


def _kill(loaders: list[Any]) -> None:
    """End loader processes: Python would ask them to by SIGTERM, and wait for ever."""
    if not loaders:
        return
    # PyTorch's handler would take this for an accident
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for process in loaders:
        process.kill()
        process.join()
    signal.signal(signal.SIGCHLD, before)


@functools.lru_cache(maxsize=4)
def _order(seed: int, name: str, images: int, epoch: int) -> NDArray[np.int64]:
    return numpy_generator(seed, f"{name} order", epoch).permutation(images)


def _to_tensor(image: Image) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
