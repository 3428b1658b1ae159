"""Noise-space domain adaptation, the paper's method (arXiv 2406.18516, sections 3.2 and 3.3).

A diffusion model, the *denoiser*, predicts the noise in a noised clean image. It is conditioned on
the restored synthetic image and the restored real image; the better these are, the smaller its
error. The error flows back into the restorer, which so learns to restore real images of which no
clean version exists.

Notation: synthetic pair (x_s, y_s), real image x_r, restorer x + G(x), noise level a::

    y^_s = x_s + G(x_s)      y^_r = x_r + G(x_r)           restored images
    y~ = sqrt(a) y_s + sqrt(1 - a) eps                      noised clean image
    d_pos = mse(eps, eps_theta(y~, y^_s, y^_r, a))          error with the right conditions
    d_neg = mse(eps, eps_theta(y~, x_s + G(x_r), x_r + G(x_s), a))
    L_con = max(d_pos - d_neg + margin, 0)                  residual-swapping contrastive term
    L_dif = (d_pos + L_con) / 2                             d_pos alone without residual swapping
    L = L_res + w L_dif,  w = weight (2 / (1 + exp(-5 p)) - 1),  p = min(progress / ramp, 1)

In the *unpaired extension* ("Ours-Ex") y_s in y~ is a clean image of another collection.

*Channel shuffling*: each image's two conditions change places with probability 1/2, so that the
denoiser cannot learn which of them matches the noised image. *Residual swapping*: negatives whose
residuals come from the other domain keep it from using the synthetic condition alone.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.config.methods import NoiseSpaceSettings
from pipeline.datasets.batches import Batch
from pipeline.methods.diffusion import add_noise, alpha_bars, continuous_level
from pipeline.methods.losses import charbonnier
from pipeline.methods.method import Draws, Method, Progress
from pipeline.models.denoiser.network import Denoiser

RAMP_STEEPNESS = 5.0
"""Of the weight's sigmoid, after Ganin & Lempitsky 2015; fixed in the authors' release."""

MEASURED_SIGMAS_255 = (0, 5, 10, 20, 40, 80)
"""Spoilt conditions for ``measure``; the paper's Figure 1a has sigma from 0 to 80."""
MEASURED_DRAWS = 8
"""Noise levels of each image in ``measure``."""


@dataclass(frozen=True)
class NoiseSpaceDraws(Draws):
    """The random numbers of one training step."""

    noise: Tensor
    """eps, (batch, 3, height, width)."""
    diffusion_step: Tensor
    """t, (batch,) int64."""
    fraction: Tensor
    """u in [0, 1), place of the level between t - 1 and t, (batch,)."""
    shuffled: Tensor
    """Whether an image's conditions change places, (batch,) bool."""
    shuffled_negative: Tensor
    """The same for the negatives, drawn independently, (batch,) bool."""


class NoiseSpace(Method):
    """Restorer and denoiser, trained together."""

    settings: NoiseSpaceSettings
    levels: Tensor

    def __init__(self, restorer: nn.Module, settings: NoiseSpaceSettings) -> None:
        super().__init__(restorer, settings)
        self.wants = ("unpaired",) if settings.target == "unpaired" else ()
        self.denoiser: nn.Module = Denoiser(
            settings.denoiser, conditions=2 if settings.conditions == "both" else 1
        )
        self.register_buffer("levels", alpha_bars(settings.schedule).float(), persistent=False)

    def learning_rate_factors(self) -> dict[str, float]:
        """Return the denoiser's."""
        return {"denoiser": self.settings.denoiser_learning_rate_factor}

    def draw(self, generator: torch.Generator, shape: tuple[int, ...]) -> NoiseSpaceDraws:
        """Return the draws of one step for images of a shape (batch, 3, height, width)."""
        batch = shape[0]
        first, last = self.settings.diffusion_step_range
        return NoiseSpaceDraws(
            noise=torch.randn(shape, generator=generator),
            diffusion_step=torch.randint(first, last + 1, (batch,), generator=generator),
            fraction=torch.rand(batch, generator=generator),
            shuffled=torch.rand(batch, generator=generator) > 0.5,
            shuffled_negative=torch.rand(batch, generator=generator) > 0.5,
        )

    def forward(
        self, batch: Batch, draws: NoiseSpaceDraws, progress: Progress
    ) -> dict[str, Tensor]:
        """Return the joint loss and its terms, see the top of this file.

        After the backward pass ``gradient_norms`` holds the L2 norms of the two forces on the
        restored images: of w L_dif (both domains) and of L_res (synthetic images).
        """
        settings = self.settings
        # one pass for both domains: the restorer has no batch statistics, so nothing mixes
        both = self.restorer(torch.cat([batch.synthetic, batch.real]))
        restoration = charbonnier(
            self._watched("restoration_gradient", both).chunk(2)[0], batch.clean
        )

        target = batch.clean if batch.unpaired is None else batch.unpaired
        level = continuous_level(self.levels, draws.diffusion_step, draws.fraction)
        noisy = add_noise(target, draws.noise, level)
        restored_synthetic, restored_real = self._watched("diffusion_gradient", both).chunk(2)
        conditions = self._join(restored_synthetic, restored_real, draws.shuffled)
        terms = {"restoration": restoration}
        if settings.residual_swapping:
            swapped = swap_residuals(batch.synthetic, restored_synthetic, batch.real, restored_real)
            negatives = self._join(*swapped, draws.shuffled_negative)
            predicted, predicted_negative = self.denoiser(
                torch.cat([noisy, noisy]), torch.cat([conditions, negatives]), level.repeat(2)
            ).chunk(2)
            positive_error = F.mse_loss(predicted, draws.noise)
            negative_error = F.mse_loss(predicted_negative, draws.noise)
            contrast = F.relu(positive_error - negative_error + settings.margin)
            diffusion = (positive_error + contrast) / 2
            terms |= {"negative_error": negative_error, "contrast": contrast}
        else:
            positive_error = F.mse_loss(self.denoiser(noisy, conditions, level), draws.noise)
            diffusion = positive_error
        done = progress.step if settings.ramp_unit == "steps" else progress.epoch
        weight = ramped_weight(settings.weight, done, settings.ramp)
        return {
            "total": restoration + weight * diffusion,
            "diffusion": diffusion,
            "positive_error": positive_error,
            **terms,
        }

    def measure(self, batch: Batch, generator: torch.Generator, span: float) -> dict[str, Any]:
        """Return the prediction error against the quality of the conditions (paper, Figure 1a).

        As there, the conditions are the noised image's own clean image plus Gaussian noise, here
        of every sigma in MEASURED_SIGMAS_255; noise and diffusion steps are the same for each.
        ``error_restored`` is the error with the restored images as conditions, as in training.

        Args:
            batch: some images of both domains.
            generator: gives noise, diffusion steps and shuffling.
            span: white minus black, 255 on the scale of sigma.
        """
        draws = self.draw(generator, (MEASURED_DRAWS * len(batch.clean), *batch.clean.shape[1:]))
        draws = draws.to(batch.clean.device)
        clean = batch.clean.repeat(MEASURED_DRAWS, 1, 1, 1)
        level = continuous_level(self.levels, draws.diffusion_step, draws.fraction)
        noisy = add_noise(clean, draws.noise, level)

        def error(synthetic: Tensor, real: Tensor) -> float:
            conditions = self._join(synthetic, real, draws.shuffled)
            parts = (value.chunk(MEASURED_DRAWS) for value in (noisy, conditions, level))
            predicted = torch.cat([self.denoiser(*part) for part in zip(*parts, strict=True)])
            return F.mse_loss(predicted.float(), draws.noise).item()

        errors = []
        for sigma in MEASURED_SIGMAS_255:
            noise = torch.randn(clean.shape, generator=generator).to(clean.device)
            spoiled = clean + sigma / 255 * span * noise
            errors.append(error(spoiled, spoiled))
        restored = (self.restorer(images) for images in (batch.synthetic, batch.real))
        restored_error = error(*(image.repeat(MEASURED_DRAWS, 1, 1, 1) for image in restored))
        return {
            "condition_sigma_255": list(MEASURED_SIGMAS_255),
            "error": errors,
            "error_restored": restored_error,
        }

    def _watched(self, name: str, images: Tensor) -> Tensor:
        """Return the same images; note the norm of the gradient that comes back through them."""
        if not images.requires_grad:
            return images
        seen = images.view_as(images)

        def note(gradient: Tensor) -> None:
            self.gradient_norms[name] = gradient.norm()

        seen.register_hook(note)  # type: ignore[no-untyped-call]
        return seen

    def _join(self, synthetic: Tensor, real: Tensor, shuffled: Tensor) -> Tensor:
        if self.settings.conditions == "synthetic":
            return synthetic
        if self.settings.conditions == "real":
            return real
        if self.settings.channel_shuffling:
            synthetic, real = shuffle_conditions(synthetic, real, shuffled)
        return torch.cat([synthetic, real], dim=1)


def shuffle_conditions(first: Tensor, second: Tensor, shuffled: Tensor) -> tuple[Tensor, Tensor]:
    """Return the two conditions, exchanged for those images where ``shuffled`` is true.

    Args:
        first: (batch, 3, height, width).
        second: the same shape.
        shuffled: (batch,) bool.
    """
    exchange = shuffled.view(-1, 1, 1, 1)
    return torch.where(exchange, second, first), torch.where(exchange, first, second)


def swap_residuals(
    synthetic: Tensor, restored_synthetic: Tensor, real: Tensor, restored_real: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the negatives x_s + G(x_r) and x_r + G(x_s), with G(x) = restored - degraded."""
    return synthetic + (restored_real - real), real + (restored_synthetic - synthetic)


def ramped_weight(weight: float, progress: float, ramp: float) -> float:
    """Return w = weight (2 / (1 + exp(-5 p)) - 1) with p = min(progress / ramp, 1)."""
    p = min(progress / ramp, 1.0)
    return weight * (2 / (1 + math.exp(-RAMP_STEEPNESS * p)) - 1)
