"""The noise schedule and noising; knows no network."""

import torch
from torch import Tensor

from pipeline.config.denoiser import NoiseSchedule


def alpha_bars(schedule: NoiseSchedule) -> Tensor:
    """Return alpha_bar for every step: cumprod(1 - beta), betas linear, (diffusion_steps,) float64.

    Source: paper section 4, as in Ho et al. 2020, equation 4.
    """
    betas = torch.linspace(
        schedule.beta_first, schedule.beta_last, schedule.diffusion_steps, dtype=torch.float64
    )
    return torch.cumprod(1 - betas, dim=0)


def continuous_level(levels: Tensor, step: Tensor, fraction: Tensor) -> Tensor:
    """Return a = alpha_bar[t-1] + u (alpha_bar[t] - alpha_bar[t-1]), (batch,).

    Args:
        levels: alpha_bar of every step, (diffusion_steps,).
        step: t in {1, ..., diffusion_steps - 1}, (batch,) int64.
        fraction: u in [0, 1), (batch,).

    Source: SR3 (Saharia et al. 2021), section 2.4; Palette likewise.
    """
    return levels[step - 1] + fraction * (levels[step] - levels[step - 1])


def add_noise(clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """Return y~ = sqrt(a) y + sqrt(1 - a) eps, shaped as ``clean`` (batch, 3, height, width)."""
    a = level.view(-1, 1, 1, 1)
    return a.sqrt() * clean + (1 - a).sqrt() * noise
