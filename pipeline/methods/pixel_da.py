"""PixelDA: synthetic images are made to look real, and the restorer learns on both (pixel space).

K. Bousmalis, N. Silberman, D. Dohan, D. Erhan, D. Krishnan, Unsupervised Pixel-Level Domain
Adaptation with Generative Adversarial Networks, CVPR 2017.

Notation: synthetic pair (x_s, y_s), real image x_r, noise z, generator G, discriminator D, made
image x_f = G(x_s, z); the losses of sections 3.1 and 3.2::

    L_d = -(E log D(x_r) + E log(1 - D(x_f))) / 2              D minimizes it,
    L_g = -E log D(x_f)                                        and G its non-saturating form
    L_t = (L_res(x_s) + L_res(x_f)) / 2                        task: restorer and generator
    L_c = mean d^2 - (mean d)^2,  d = (x_f - x_s) / span       content similarity
    L_i = mean |G(x_r, z) - x_r| / span                        identity
    L = L_t / span + adversarial L_g + content L_c + identity L_i

Divided by the span, white minus black, losses of pixels weigh the same in every range of values.

Fitted to restoration: the label of x_f is y_s, so the generator must keep the picture to the pixel.
It is therefore a small network that adds a residual, at first none; L_c lets it change the
brightness freely and the texture at a price; L_i, not in the paper, keeps what is real already as
it is (Zhu et al. 2017, section 5.2). z is a map of noise beside the image, since degradations are
random at each pixel; in the paper it is one vector an image. The authors' code updates D and the
task network in one step and G in another; here all take the same one. The paper tunes its weights
for each data set; the defaults are 0.1 for L_g, a cross-entropy that begins at ln 2, many times
L_t, and 1 for the two that hold the picture. beta1 of Adam is 0.5 for generator and discriminator,
as for adversarial networks since Radford et al. 2016: with 0.9 each follows where the other was.
The restorer keeps its own.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.config.methods import PixelDaSettings
from pipeline.datasets.batches import Batch
from pipeline.methods.adversarial import (
    domain_loss,
    fooled,
    frozen,
    pairwise_squared_error,
)
from pipeline.methods.losses import charbonnier
from pipeline.methods.method import Draws, Method, Progress
from pipeline.models.adversarial import Discriminator, Generator

NOISE_CHANNELS = 3
"""A value for each colour of each pixel."""


@dataclass(frozen=True)
class PixelDaDraws(Draws):
    """The random numbers of one training step."""

    noise: Tensor
    """z, (batch, NOISE_CHANNELS, height, width)."""


class PixelDa(Method):
    """Restorer, generator and discriminator."""

    settings: PixelDaSettings

    def __init__(self, restorer: nn.Module, settings: PixelDaSettings) -> None:
        super().__init__(restorer, settings)
        self.generator = Generator(settings.channels, settings.blocks, NOISE_CHANNELS)
        self.discriminator = Discriminator(settings.channels)

    def learning_rate_factors(self) -> dict[str, float]:
        """Return those of generator and discriminator, both alike."""
        return dict.fromkeys(("generator", "discriminator"), self.settings.learning_rate_factor)

    def draw(self, generator: torch.Generator, shape: tuple[int, ...]) -> PixelDaDraws:
        """Return z of one step for images of a shape (batch, 3, height, width)."""
        return PixelDaDraws(
            torch.randn((shape[0], NOISE_CHANNELS, *shape[2:]), generator=generator)
        )

    def momentum(self) -> float:
        """Return beta1 of the networks that play against each other."""
        return self.settings.momentum

    def forward(self, batch: Batch, draws: PixelDaDraws, progress: Progress) -> dict[str, Tensor]:
        """Return the losses and their weighted sum, see the top of this file."""
        settings = self.settings
        given = torch.cat([batch.synthetic, batch.real])
        made, kept = self.generator(given, draws.noise.repeat(2, 1, 1, 1)).chunk(2)
        restored = self.restorer(torch.cat([batch.synthetic, made]))
        restoration, restoration_made = (
            charbonnier(images, batch.clean) for images in restored.chunk(2)
        )
        judged = self.discriminator(torch.cat([batch.real, made.detach()]))
        domain = domain_loss(*judged.chunk(2))
        deception = fooled(frozen(self.discriminator, made))
        content = pairwise_squared_error(made, batch.synthetic) / batch.span**2
        identity = F.l1_loss(kept, batch.real) / batch.span
        total = (
            (restoration + restoration_made) / 2 / batch.span
            + settings.adversarial_weight * deception
            + settings.content_weight * content
            + settings.identity_weight * identity
            + domain
        )
        return {
            "total": total,
            "restoration": restoration,
            "restoration_made": restoration_made,
            "domain": domain,
            "deception": deception,
            "content": content,
            "identity": identity,
        }
