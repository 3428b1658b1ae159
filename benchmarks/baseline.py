"""One joint training step written the plain way, to measure this project's own step against.

As in the authors' release: every network pass on its own, float32 in NCHW order, PyTorch's default
Adam without its fused or multi-tensor paths, a moving average of every weight of both networks in a
Python loop. The networks are this project's, with diffusers' own residual blocks in the denoiser.
"""

import copy

import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from pipeline.config.methods import NoiseSpaceSettings
from pipeline.config.restorers import RestorerSettings
from pipeline.datasets.batches import Batch
from pipeline.methods.diffusion import add_noise, alpha_bars, continuous_level
from pipeline.methods.losses import charbonnier
from pipeline.models.build import build_restorer
from pipeline.models.denoiser.network import Denoiser

LEARNING_RATE = 1e-4
AVERAGE_DECAY = 0.9999


class PlainStep:
    """Networks, optimizers and averages; call it with a batch to make one training step."""

    def __init__(
        self, restorer: RestorerSettings, settings: NoiseSpaceSettings, device: torch.device
    ) -> None:
        self.settings = settings
        self.levels = alpha_bars(settings.schedule).float().to(device)
        self.networks: dict[str, nn.Module] = {
            "restorer": build_restorer(restorer).to(device),
            "denoiser": plain_denoiser(Denoiser(settings.denoiser, conditions=2)).to(device),
        }
        self.averages = copy.deepcopy(self.networks)
        self.optimizers = [
            torch.optim.Adam(network.parameters(), LEARNING_RATE, foreach=False, fused=False)
            for network in self.networks.values()
        ]

    def __call__(self, batch: Batch) -> float:
        """Make one step and return the loss."""
        loss = self.loss(batch)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for optimizer in self.optimizers:
            optimizer.step()
        with torch.no_grad():
            for name, network in self.networks.items():
                averages = self.averages[name].parameters()
                for average, weight in zip(averages, network.parameters(), strict=True):
                    average.mul_(AVERAGE_DECAY).add_(weight, alpha=1 - AVERAGE_DECAY)
        return loss.item()

    def loss(self, batch: Batch) -> Tensor:
        """Return the joint loss at full weight, see ``pipeline/methods/noise_space.py``."""
        restorer, denoiser = self.networks["restorer"], self.networks["denoiser"]
        restored_synthetic = restorer(batch.synthetic)
        restored_real = restorer(batch.real)
        images = len(batch.clean)
        device = batch.clean.device
        step = torch.randint(1, len(self.levels), (images,), device=device)
        level = continuous_level(self.levels, step, torch.rand(images, device=device))
        noise = torch.randn_like(batch.clean)
        noisy = add_noise(batch.clean, noise, level)

        conditions = _shuffled(restored_synthetic, restored_real)
        positive_error = F.mse_loss(denoiser(noisy, conditions, level), noise)
        swapped_synthetic = batch.synthetic + (restored_real - batch.real)
        swapped_real = batch.real + (restored_synthetic - batch.synthetic)
        negatives = _shuffled(swapped_synthetic, swapped_real)
        negative_error = F.mse_loss(denoiser(noisy, negatives, level), noise)

        contrast = F.relu(positive_error - negative_error + self.settings.margin)
        diffusion = (positive_error + contrast) / 2
        return charbonnier(restored_synthetic, batch.clean) + self.settings.weight * diffusion


def plain_denoiser(denoiser: nn.Module) -> Denoiser:
    """Return the denoiser with an unmodified diffusers network inside, with the same weights."""
    assert isinstance(denoiser, Denoiser)
    plain = UNet2DModel.from_config(denoiser.unet.config)
    plain.load_state_dict(denoiser.unet.state_dict())
    denoiser.unet = plain.train(denoiser.training)
    denoiser.checkpointed = (ResnetBlock2D,)
    return denoiser


def _shuffled(first: Tensor, second: Tensor) -> Tensor:
    exchange = (torch.rand(len(first), device=first.device) > 0.5).view(-1, 1, 1, 1)
    return torch.cat(
        [torch.where(exchange, second, first), torch.where(exchange, first, second)], dim=1
    )
