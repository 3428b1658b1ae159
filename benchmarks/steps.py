"""The measured training steps: networks and batch of a size, one function a variant."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks.baseline import AVERAGE_DECAY, LEARNING_RATE, PlainStep
from pipeline.config.methods import DenoiserSettings, NoiseSchedule, NoiseSpaceSettings
from pipeline.config.restorers import UNetSettings
from pipeline.datasets.batches import Batch
from pipeline.device import Precision, autocast
from pipeline.methods.method import Progress, build_method
from pipeline.methods.noise_space import NoiseSpace
from pipeline.models.build import build_restorer

VARIANTS = ("plain", "fp32", "bf16", "fp32-shares", "bf16-shares")
"""``-shares``: the batch in shares of one image, as ``train.accumulate`` makes them."""
COMPILED = ("fp32-compiled", "bf16-compiled")
"""As ``train.compile`` has it."""
EVERY_VARIANT = (*VARIANTS, *COMPILED)
SCHEDULE = NoiseSchedule(diffusion_steps=1000, beta_first=1e-6, beta_last=0.01)
AT_FULL_WEIGHT = Progress(step=10**9, epoch=10**9, fraction=1.0)


@dataclass(frozen=True)
class Size:
    """Networks and batch of a measurement, and more bytes of memory than its steps take."""

    restorer: UNetSettings
    denoiser: DenoiserSettings
    batch: int
    patch: int
    memory: int

    @property
    def method(self) -> NoiseSpaceSettings:
        """The paper's method with this denoiser."""
        return NoiseSpaceSettings(
            kind="noise_space",
            start="pretrained",
            weight=0.2,
            ramp=300,
            ramp_unit="epochs",
            margin=0.1,
            channel_shuffling=True,
            residual_swapping=True,
            target="paired",
            conditions="both",
            diffusion_step_range=(1, 999),
            denoiser_learning_rate_factor=1.0,
            schedule=SCHEDULE,
            denoiser=self.denoiser,
        )


SIZES = {
    "paper": Size(
        UNetSettings("unet", 4, 64),
        DenoiserSettings((64, 128, 256, 512), 2, 1, 32, 32, 0.2),
        2,
        128,
        6 * 2**30,
    ),
    "tiny": Size(
        UNetSettings("unet", 2, 8), DenoiserSettings((8, 16), 1, 1, 8, 4, 0.2), 2, 16, 2**26
    ),
}
"""``tiny`` is for tests: its numbers mean nothing."""


def build_step(variant: str, size: Size) -> Callable[[], float]:
    """Return a function that makes one training step and returns its loss."""
    torch.manual_seed(0)
    shape = (size.batch, 3, size.patch, size.patch)
    batch = Batch(*(torch.rand(shape) for _ in range(3)))
    if variant == "plain":
        torch.use_deterministic_algorithms(False)
        plain = PlainStep(size.restorer, size.method)
        return lambda: plain(batch)
    shares = size.batch if variant.endswith("-shares") else 1
    precision: Precision = "bf16" if variant.startswith("bf16") else "fp32"
    return project_step(size, batch, precision, shares, variant in COMPILED)


def project_step(
    size: Size, batch: Batch, precision: Precision, shares: int, compiled: bool
) -> Callable[[], float]:
    """Return this project's step; the lines are those of ``pipeline/training/loop.py``."""
    device = torch.device("cpu")
    method = build_method(build_restorer(size.restorer), size.method)
    assert isinstance(method, NoiseSpace)
    method.to(memory_format=torch.channels_last)
    average_step = get_ema_multi_avg_fn(AVERAGE_DECAY)  # type: ignore[no-untyped-call]
    average = AveragedModel(copy.deepcopy(method.restorer), multi_avg_fn=average_step)
    optimizers = [
        torch.optim.Adam(network.parameters(), LEARNING_RATE, fused=True)
        for network in (method.restorer, method.denoiser)
    ]
    if compiled:
        for network in (method.restorer, method.denoiser):
            network.compile()
    generator = torch.Generator().manual_seed(0)

    def step() -> float:
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        draws = method.draw(generator, tuple(batch.clean.shape))
        loss = 0.0
        for number in range(shares):
            place = slice(number * size.batch // shares, (number + 1) * size.batch // shares)
            part = Batch(batch.synthetic[place], batch.clean[place], batch.real[place])
            with autocast(device, precision):
                terms = method(part.to(device, (0, 1)), draws.part(place), AT_FULL_WEIGHT)
            (terms["total"] / shares).backward()
            loss += terms["total"].item() / shares
        for optimizer in optimizers:
            optimizer.step()
        average.update_parameters(method.restorer)
        return loss

    return step
