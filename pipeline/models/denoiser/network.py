"""The conditional diffusion network: needed while training, then thrown away."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.config.denoiser import DenoiserSettings
from pipeline.models.denoiser.residual_block import ResidualBlock


class Denoiser(nn.Module):
    """Predict the noise in an image, given restored images as conditions: eps(y~, c1, c2, a).

    A diffusers ``UNet2DModel`` in the shape of guided diffusion's (Dhariwal & Nichol 2021), as the
    paper has it: residual blocks also change the resolution, self-attention stands in the middle
    block. The noise level ``a`` itself (alpha_bar) scales and shifts normalized features, through a
    sinusoidal embedding, as in SR3 and Palette. With 64, 128, 256, 512 channels and two blocks a
    level: 62,643,075 parameters, 51.49 GMACs at 128x128 (the release: 62.6 M and 51.5).
    """

    def __init__(self, settings: DenoiserSettings, conditions: int) -> None:
        super().__init__()
        from diffusers import UNet2DModel  # 2 s to import, and only adapting methods need it

        self.checkpointed = (ResidualBlock,)
        self.pixel_unshuffle = settings.pixel_unshuffle
        positions = settings.pixel_unshuffle**2
        levels = len(settings.channels)
        unet: Any = UNet2DModel  # its annotations are incomplete
        self.unet = unet(
            in_channels=3 * (1 + conditions) * positions,
            out_channels=3 * positions,
            block_out_channels=settings.channels,
            layers_per_block=settings.blocks_per_level,
            down_block_types=("ResnetDownsampleBlock2D",) * levels,
            up_block_types=("ResnetUpsampleBlock2D",) * levels,
            resnet_time_scale_shift="scale_shift",
            attention_head_dim=settings.attention_head_channels,
            norm_num_groups=settings.norm_groups,
            # with "scale_shift" diffusers drops the norm before self-attention unless told
            attn_norm_num_groups=settings.norm_groups,
            dropout=settings.dropout,
            flip_sin_to_cos=True,
            freq_shift=0,
        )
        for part in (*self.unet.down_blocks, self.unet.mid_block, *self.unet.up_blocks):
            for name in ("resnets", "downsamplers", "upsamplers"):
                if blocks := getattr(part, name, None):
                    setattr(part, name, nn.ModuleList(ResidualBlock(block) for block in blocks))

    def forward(self, noisy: Tensor, conditions: Tensor, level: Tensor) -> Tensor:
        """Return the predicted noise, shaped as ``noisy``.

        Args:
            noisy: y~, (batch, 3, height, width).
            conditions: c1, c2 joined, (batch, 3 x conditions, height, width).
            level: a in (0, 1], (batch,).
        """
        images = torch.cat([noisy, conditions], dim=1)
        small = F.pixel_unshuffle(images, self.pixel_unshuffle)
        predicted: Tensor = self.unet(small, level).sample
        return F.pixel_shuffle(predicted, self.pixel_unshuffle)
