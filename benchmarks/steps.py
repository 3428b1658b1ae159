"""The measured training steps: networks and batch of a size, one function a variant."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.baseline import AVERAGE_DECAY, LEARNING_RATE, PlainStep, plain_denoiser
from pipeline.config.denoiser import DenoiserSettings, NoiseSchedule
from pipeline.config.methods import NoiseSpaceSettings, VanillaSettings
from pipeline.config.restorers import UNetSettings
from pipeline.datasets.batches import Batch
from pipeline.device import Precision, autocast, use_precision
from pipeline.methods.method import Progress, build_method
from pipeline.methods.noise_space import NoiseSpace
from pipeline.models.build import build_restorer
from pipeline.models.checkpointing import checkpoint_gradients
from pipeline.models.restorers import unet
from pipeline.training.average import MovingAverage

SCHEDULE = NoiseSchedule(diffusion_steps=1000, beta_first=1e-6, beta_last=0.01)
AT_FULL_WEIGHT = Progress(step=10**9, epoch=10**9, fraction=1.0)
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Variant:
    """How a step is made.

    ``shares``: the batch in shares of one image, as ``train.accumulate`` makes them.
    ``plain_blocks``: unmodified diffusers blocks in the denoiser, all else this project's.
    """

    precision: Precision = "fp32"
    shares: bool = False
    plain_blocks: bool = False
    compiled: bool = False
    checkpointed: bool = False
    channels_last: bool = True
    adapts: bool = True
    """False: vanilla, the restorer alone."""
    products: bool = True
    """False: PyTorch's own interpolation in the U-Net, on GPUs too."""


VARIANTS = {
    "fp32": Variant(),
    "bf16": Variant("bf16"),
    "fp32-plain-blocks": Variant(plain_blocks=True),
    "bf16-plain-blocks": Variant("bf16", plain_blocks=True),
    "fp32-shares": Variant(shares=True),
    "bf16-shares": Variant("bf16", shares=True),
    "fp32-checkpointed": Variant(checkpointed=True),
    "bf16-checkpointed": Variant("bf16", checkpointed=True),
    "fp32-compiled": Variant(compiled=True),
    "bf16-compiled": Variant("bf16", compiled=True),
}
EVERY_VARIANT = ("plain", *VARIANTS)
"""``plain`` is the whole step of ``benchmarks/baseline.py``."""
USUAL_VARIANTS = tuple(name for name in EVERY_VARIANT if "compiled" not in name)


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


def build_step(name: str, size: Size, device: torch.device = CPU) -> Callable[[], float]:
    """Return a function that makes one training step of a variant and returns its loss."""
    torch.manual_seed(0)
    batch = random_batch(size)
    if name == "plain":
        torch.use_deterministic_algorithms(False)
        plain = PlainStep(size.restorer, size.method, device)
        there = batch.to(device, (0, 1))
        return lambda: plain(there)
    return project_step(size, batch, VARIANTS[name], device)


def random_batch(size: Size) -> Batch:
    """Return images of noise."""
    shape = (size.batch, 3, size.patch, size.patch)
    return Batch(*(torch.rand(shape) for _ in range(3)))


def project_step(
    size: Size, batch: Batch, variant: Variant, device: torch.device = CPU
) -> Callable[[], float]:
    """Return this project's step; the lines are those of ``pipeline/training/loop.py``."""
    use_precision(variant.precision)
    unet.BY_PRODUCTS = ("cuda",) if variant.products else ()  # type: ignore[assignment]
    settings = size.method if variant.adapts else VanillaSettings("vanilla", "scratch")
    method = build_method(build_restorer(size.restorer), settings)
    if variant.plain_blocks:
        assert isinstance(method, NoiseSpace)
        plain_denoiser(method.denoiser)
    order = torch.channels_last if variant.channels_last else torch.contiguous_format
    method.to(device).to(memory_format=order)
    average = MovingAverage(method.restorer, AVERAGE_DECAY)
    networks = [method.restorer, *(getattr(method, n) for n in method.learning_rate_factors())]
    optimizers = [
        torch.optim.Adam(network.parameters(), LEARNING_RATE, fused=True) for network in networks
    ]
    if variant.checkpointed:
        checkpoint_gradients(method, variant.compiled)
    if variant.compiled:
        for network in networks:
            network.compile()
    generator = torch.Generator(device).manual_seed(0)
    shares = size.batch if variant.shares else 1

    def step() -> float:
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        with device:  # as train.draws_on=device
            draws = method.draw(generator, tuple(batch.clean.shape))
        loss = 0.0
        for number in range(shares):
            place = slice(number * size.batch // shares, (number + 1) * size.batch // shares)
            part = Batch(batch.synthetic[place], batch.clean[place], batch.real[place])
            own = draws if draws is None else draws.part(place).to(device)
            with autocast(device, variant.precision):
                moved = part.to(device, (0, 1))
                terms = method(moved, own, AT_FULL_WEIGHT)
            (terms["total"] / shares).backward()
            loss += terms["total"].item() / shares
        for optimizer in optimizers:
            optimizer.step()
        average.update()
        return loss

    return step
