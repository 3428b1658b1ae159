"""The paper's plain U-Net restorer."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.config.restorers import UNetSettings

BY_PRODUCTS = ("cuda",)
"""Kinds of device that interpolate by matrix products: asked to repeat its sums to the last bit,
PyTorch interpolates there by indices, and sorts them in the backward pass."""


def build(settings: UNetSettings) -> nn.Module:
    """Return the network."""
    return UNet(settings.levels, settings.channels)


class UNet(nn.Module):
    """U-Net that predicts a residual: restored = degraded + G(degraded).

    Two 3x3 convolutions with LeakyReLU(0.2) a level, average pooling down, bilinear interpolation
    (corners aligned) and a 3x3 convolution up. With 4 levels and 64 channels it is the restorer
    of the paper's main tables: 8,559,171 parameters, 12.44 GMACs at 128x128. Names of modules
    equal those of the authors' released weight files below ``RestorationNet.``.
    """

    def __init__(self, levels: int, channels: int) -> None:
        super().__init__()
        widths = [channels * 2**level for level in range(levels)]
        self.down_path = nn.ModuleList(
            ConvolutionBlock(before, after)
            for before, after in zip([3, *widths[:-1]], widths, strict=True)
        )
        self.up_path = nn.ModuleList(
            UpBlock(before, after)
            for before, after in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.last = nn.Conv2d(channels, 3, 3, padding=1)
        self.checkpointed = (ConvolutionBlock, UpBlock)

    def forward(self, degraded: Tensor) -> Tensor:
        """Return the restored images.

        Args:
            degraded: (batch, 3, height, width); both sides multiples of
                2^(levels - 1).
        """
        features = degraded
        skips = []
        for level, block in enumerate(self.down_path):
            features = block(features if level == 0 else F.avg_pool2d(features, 2))
            skips.append(features)
        for block, skip in zip(self.up_path, skips[-2::-1], strict=True):
            features = block(features, skip)
        residual: Tensor = self.last(features)
        return degraded + residual


class ConvolutionBlock(nn.Module):
    """Two 3x3 convolutions, each followed by LeakyReLU(0.2)."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(channels_in, channels_out, 3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
            nn.Conv2d(channels_out, channels_out, 3, padding=1),
            nn.LeakyReLU(0.2, inplace=True),
        )

    def forward(self, features: Tensor) -> Tensor:
        """Return features of the same height and width."""
        result: Tensor = self.block(features)
        return result


class UpBlock(nn.Module):
    """Double the size, halve the channels, join the skip connection."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv_up = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.conv_block = ConvolutionBlock(channels_in, channels_out)

    def forward(self, features: Tensor, skip: Tensor) -> Tensor:
        """Return features of the height and width of ``skip``."""
        larger = double(features)
        joined = torch.cat([self.conv_up(larger), skip], dim=1)
        result: Tensor = self.conv_block(joined)
        return result


def double(features: Tensor) -> Tensor:
    """Return features of twice the height and width: bilinear interpolation, corners aligned."""
    if features.device.type in BY_PRODUCTS:
        return double_by_products(features)
    return F.interpolate(features, scale_factor=2, mode="bilinear", align_corners=True)


def double_by_products(features: Tensor) -> Tensor:
    """Return the same as ``double``, by a product along the width and one along the height.

    In the memory order of convolutions (channels last) neither moves anything.
    """
    batch, channels, height, width = features.shape
    last = features.permute(0, 2, 3, 1)
    wide = _shares(width, features) @ last
    tall = _shares(height, features) @ wide.reshape(batch, height, 2 * width * channels)
    return tall.view(batch, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)


def _shares(side: int, like: Tensor) -> Tensor:
    """Return how much of each of ``side`` values is in each of twice as many: (2 side, side)."""
    places = torch.arange(2 * side, device=like.device) * ((side - 1) / (2 * side - 1))
    distance = (places[:, None] - torch.arange(side, device=like.device)).abs()
    return (1 - distance).clamp(min=0).to(like.dtype)
