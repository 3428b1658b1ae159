"""A blind spot after pixel-shuffle downsampling: denoising learnt from the real images alone.

In the manner of AP-BSN: W. Lee, S. Son, K. M. Lee, AP-BSN: Self-Supervised Denoising for
Real-World Images via Asymmetric PD and Blind-Spot Network, CVPR 2022.

The noise of photographs hangs together between neighbours, so a blind spot alone could be filled
with noise from beside it. *Pixel-shuffle downsampling* PD_s cuts the image into s x s images of
every s-th pixel, in which it does not. Restorer F that does not see pixel i::

    L = mean over i of |F(PD_s(x))_i - PD_s(x)_i|              s = stride

Fitted to restoration: the default stride is 4, which divides the patches of all presets, the
paper's 5. The paper builds a network that is blind by its structure; here any restorer is made
blind to a few pixels by showing it, in their place, one of their eight neighbours (A. Krull et al.,
Noise2Void, CVPR 2019), and L is of these pixels. For noise only, as ``neighbor2neighbor``; like
there the default start is scratch, and the restoration loss on synthetic pairs is logged, not
learnt from.

Left out is what the paper is named for, the *asymmetric* PD: it trains with PD_5, restores with
PD_2 and mixes several passes. Here the restorer sees the photograph as it is, with noise that hangs
together as it never did in training, so that restoring costs the same with every method. The
paper's numbers are therefore not those of this method and cannot be compared with them.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.config.methods import ApBsnSettings
from pipeline.datasets.batches import Batch
from pipeline.methods.losses import watched_restoration
from pipeline.methods.method import Draws, Method, Progress

MASKED_SHARE = 1 / 16
"""Of the pixels are hidden: few enough that neighbours show what belongs there."""
AROUND = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))


@dataclass(frozen=True)
class ApBsnDraws(Draws):
    """The random numbers of one training step."""

    masked: Tensor
    """Which pixels are hidden, (batch, 1, height, width) bool."""
    neighbour: Tensor
    """Which of AROUND takes a hidden pixel's place, the same shape, int64."""


class ApBsn(Method):
    """The restorer alone."""

    settings: ApBsnSettings

    def draw(self, generator: torch.Generator, shape: tuple[int, ...]) -> ApBsnDraws:
        """Return what is hidden in one step, for images of a shape (batch, 3, height, width)."""
        pixels = (shape[0], 1, *shape[2:])
        return ApBsnDraws(
            masked=torch.rand(pixels, generator=generator) < MASKED_SHARE,
            neighbour=torch.randint(len(AROUND), pixels, generator=generator),
        )

    def forward(self, batch: Batch, draws: ApBsnDraws, progress: Progress) -> dict[str, Tensor]:
        """Return the loss of the hidden pixels and, for the log, that on synthetic pairs."""
        stride = self.settings.stride
        images, masked, neighbour = (
            downsample(value, stride) for value in (batch.real, draws.masked, draws.neighbour)
        )
        error = (self.restorer(hide(images, masked, neighbour)) - images).abs()
        # divided by the expected number: then shares of a batch add up
        blind = (error * masked).mean() / MASKED_SHARE
        watched = watched_restoration(self.restorer, batch, progress)
        return {"total": blind, "blind": blind, **watched}


def downsample(values: Tensor, stride: int) -> Tensor:
    """Return PD_s, (batch s^2, channels, height / s, width / s).

    Args:
        values: (batch, channels, height, width); both sides multiples of the stride.
        stride: s.
    """
    batch, channels, height, width = values.shape
    size = (height // stride, width // stride)
    parts = F.pixel_unshuffle(values, stride).view(batch, channels, stride**2, *size)
    return parts.transpose(1, 2).reshape(-1, channels, *size)


def hide(images: Tensor, masked: Tensor, neighbour: Tensor) -> Tensor:
    """Return the images with a neighbour's value in every masked pixel; edges are joined.

    Args:
        images: (batch, 3, height, width).
        masked: (batch, 1, height, width) bool.
        neighbour: places in AROUND, the same shape.
    """
    moved = torch.stack([images.roll(shift, (2, 3)) for shift in AROUND])
    taken = moved.gather(0, neighbour.expand_as(images)[None])[0]
    return torch.where(masked, taken, images)
