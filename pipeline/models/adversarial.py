"""Networks that baselines train beside the restorer and throw away.

What is played against, the discriminator and the domain classifier, is bounded by *spectral
normalization* (Miyato et al. 2018): every layer is divided by its largest singular value, so that
neither can pull harder at what it is given (images; normalized features) than a fixed slope
allows. R1 would bound it at the real images alone and needs second derivatives, which shares,
several processes and bfloat16 make fragile.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

SLOPE = 0.2
"""Of every LeakyReLU, as in the restorer."""


def _bounded(layer: nn.Conv2d) -> nn.Module:
    bounded: nn.Module = spectral_norm(layer)
    return bounded


def _in_float32(layers: nn.Module, given: Tensor) -> Tensor:
    # autocast would round a singular vector and not its partner, which torch then refuses
    with torch.autocast(given.device.type, enabled=False):
        logits: Tensor = layers(given.float())
    return logits


class Discriminator(nn.Module):
    """Tell images of a domain from generated ones: a logit for each patch of 18 pixels.

    Small patches, because the domains differ in their degradation and not only in that: a
    discriminator that sees whole scenes would have the generator exchange the contents.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _bounded(nn.Conv2d(3, channels, 4, stride=2, padding=1)),
            nn.LeakyReLU(SLOPE),
            _bounded(nn.Conv2d(channels, 2 * channels, 4, stride=2, padding=1)),
            nn.LeakyReLU(SLOPE),
            _bounded(nn.Conv2d(2 * channels, 1, 3, padding=1)),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (batch, 1, height / 4, width / 4) of (batch, 3, height, width)."""
        return _in_float32(self.layers, images)


class DomainClassifier(nn.Module):
    """Tell the domains apart by features of the restorer: a logit for each place.

    The features of an image are brought to mean 0 and variance 1 first: the restorer shall not
    confuse the classifier by making them small.
    """

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.GroupNorm(1, channels_in, affine=False),
            _bounded(nn.Conv2d(channels_in, channels, 1)),
            nn.LeakyReLU(SLOPE),
            _bounded(nn.Conv2d(channels, channels, 3, padding=1)),
            nn.LeakyReLU(SLOPE),
            _bounded(nn.Conv2d(channels, 1, 1)),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return logits (batch, 1, height, width) of (batch, channels, height, width)."""
        return _in_float32(self.layers, features)


class Generator(nn.Module):
    """Turn degraded images of one domain into such of another: x + R(x), at first x itself.

    Works at half the size (pixel unshuffle) with residual blocks of two 3x3 convolutions. It sees
    10 pixels and 8 more with each block, so 26 in the demo and 58 at the paper's size: enough for
    noise, streaks and blur. That the content stays is the task of losses, see the methods.
    """

    def __init__(self, channels: int, blocks: int, noise_channels: int = 0) -> None:
        super().__init__()
        self.first = nn.Conv2d(4 * (3 + noise_channels), channels, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LeakyReLU(SLOPE),
                nn.Conv2d(channels, channels, 3, padding=1),
                nn.LeakyReLU(SLOPE),
                nn.Conv2d(channels, channels, 3, padding=1),
            )
            for _ in range(blocks)
        )
        self.last = nn.Conv2d(channels, 4 * 3, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return images of the same shape.

        Args:
            images: (batch, 3, height, width); both sides even.
            noise: (batch, noise channels, height, width), what the other domain adds at random.
        """
        given = images if noise is None else torch.cat([images, noise], dim=1)
        features = self.first(F.pixel_unshuffle(given, 2))
        for block in self.blocks:
            features = features + block(features)
        return images + F.pixel_shuffle(self.last(features), 2)


class PrivateEncoder(nn.Module):
    """Code images in the shape of the restorer's features."""

    def __init__(self, channels: int, channels_out: int, factor: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.PixelUnshuffle(factor),
            nn.Conv2d(3 * factor**2, channels, 1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(channels, channels_out, 3, padding=1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return (batch, channels out, height / factor, width / factor)."""
        code: Tensor = self.layers(images)
        return code


class SharedDecoder(nn.Module):
    """Rebuild images from codes of the restorer's features' shape."""

    def __init__(self, channels_in: int, channels: int, factor: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels_in, channels, 3, padding=1),
            nn.LeakyReLU(SLOPE),
            nn.Conv2d(channels, 3 * factor**2, 3, padding=1),
            nn.PixelShuffle(factor),
        )

    def forward(self, code: Tensor) -> Tensor:
        """Return (batch, 3, height x factor, width x factor)."""
        images: Tensor = self.layers(code)
        return images
