"""Neighbor2Neighbor: denoising learnt from single noisy images, here the real ones alone.

T. Huang, S. Li, X. Jia, H. Lu, J. Liu, Neighbor2Neighbor: Self-Supervised Denoising from Single
Noisy Images, CVPR 2021.

Of each cell of 2x2 pixels two neighbours are chosen at random: two images g1(x), g2(x) of half the
size, with the same content (nearly) and noise of their own. Restorer F, equations 9 and 10::

    d = F(g1(x)) - g2(x)
    L_rec = mean d^2
    L_reg = mean (d - (g1(F(x)) - g2(F(x))))^2                 F(x) without gradient
    L = L_rec + weight p L_reg                                 p: part of the training done

L_reg makes up for the difference between neighbours that is content; the weight rises as the
authors' code lets it, up to the default 2, which is that code's own.

Fitted to restoration: nothing is to fit; F is the restorer. The method rests on noise of mean 0
that is independent from pixel to pixel. Rain and blur are neither, nor is noise that a camera has
smoothed: there it has nothing to learn from, and the table shows it. The default start is scratch,
so that it has seen real images alone; the restoration loss on synthetic pairs is logged, not
learnt from.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.config.methods import Neighbor2NeighborSettings
from pipeline.datasets.batches import Batch
from pipeline.methods.losses import watched_restoration
from pipeline.methods.method import Draws, Method, Progress

NEIGHBOURS = torch.tensor([[0, 1], [1, 0], [0, 2], [2, 0], [1, 3], [3, 1], [2, 3], [3, 2]])
"""Places in a cell of 2x2, row by row, of the two pixels that each of the eight choices takes."""


@dataclass(frozen=True)
class Neighbor2NeighborDraws(Draws):
    """The random numbers of one training step."""

    choice: Tensor
    """Rows of NEIGHBOURS, (batch, height / 2, width / 2) int64."""


class Neighbor2Neighbor(Method):
    """The restorer alone."""

    settings: Neighbor2NeighborSettings

    def draw(self, generator: torch.Generator, shape: tuple[int, ...]) -> Neighbor2NeighborDraws:
        """Return the choices of one step for images of a shape (batch, 3, height, width)."""
        cells = (shape[0], shape[2] // 2, shape[3] // 2)
        return Neighbor2NeighborDraws(torch.randint(len(NEIGHBOURS), cells, generator=generator))

    def forward(
        self, batch: Batch, draws: Neighbor2NeighborDraws, progress: Progress
    ) -> dict[str, Tensor]:
        """Return the two losses and their weighted sum, see the top of this file."""
        first, second = neighbours(batch.real, draws.choice)
        restored = self.restorer(first)
        with torch.no_grad():  # after the pass with gradient: autocast keeps that one's weights
            whole_first, whole_second = neighbours(self.restorer(batch.real), draws.choice)
        difference = restored - second
        reconstruction = difference.square().mean()
        regularization = F.mse_loss(difference, whole_first - whole_second)
        weight = self.settings.weight * progress.fraction
        return {
            "total": reconstruction + weight * regularization,
            "reconstruction": reconstruction,
            "regularization": regularization,
            **watched_restoration(self.restorer, batch, progress),
        }


def neighbours(images: Tensor, choice: Tensor) -> tuple[Tensor, Tensor]:
    """Return g1 and g2: of each cell of 2x2 pixels the two that are chosen.

    Args:
        images: (batch, channels, height, width), both sides even.
        choice: rows of NEIGHBOURS, (batch, height / 2, width / 2).

    Returns:
        Two of (batch, channels, height / 2, width / 2).
    """
    batch, channels, height, width = images.shape
    cells = F.pixel_unshuffle(images, 2).view(batch, channels, 4, height // 2, width // 2)
    taken = NEIGHBOURS.to(choice.device)[choice].permute(0, 3, 1, 2)[:, None]
    chosen = cells.gather(2, taken.expand(-1, channels, -1, -1, -1))
    return chosen[:, :, 0], chosen[:, :, 1]
