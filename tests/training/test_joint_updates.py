"""Six joint updates of the whole training, against the release's step written out by hand here.

The witness shares no code with the method: equations, schedule, ramp and conditions are written
once more from the paper, the denoiser is diffusers' own network with the settings of the release's.
Both networks are real ones, which are held against the authors' numbers in test_models.py.
"""

import copy
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from pipeline.config.denoiser import DenoiserSettings
from pipeline.config.restorers import UNetSettings
from pipeline.datasets.batches import Batch
from pipeline.methods.noise_space import NoiseSpace, NoiseSpaceDraws
from pipeline.models.restorers.unet import UNet
from pipeline.models.weights import load_tensors
from pipeline.runtime.paths import STATE_FILE
from pipeline.training.loop import train
from tests.helpers.training_job import NOISE_SPACE, TRAIN, job, write_images

UPDATES = 6
SYNTHETIC_IMAGES = 3
"""What ``write_images`` writes."""
RATE = 1e-4
METHOD = replace(
    NOISE_SPACE,
    weight=0.2,
    ramp=4,
    ramp_unit="epochs",
    denoiser=DenoiserSettings((32, 64), 2, 1, 32, 32, dropout=0.0),
)
"""As released, but for a smaller denoiser without dropout and a ramp that ends within the run."""


@dataclass
class Seen:
    """What the training starts from and is given: weights, batches and random draws."""

    restorer: UNet | None = None
    denoiser: dict[str, Tensor] = field(default_factory=dict)
    steps: list[tuple[Batch, NoiseSpaceDraws]] = field(default_factory=list)


def trained(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Tensor], Seen]:
    """Return the weights after six updates of the training, and what it was given."""
    seen = Seen()
    forward = NoiseSpace.forward

    def watch(
        self: NoiseSpace, batch: Batch, draws: NoiseSpaceDraws, progress: Any
    ) -> dict[str, Tensor]:
        if not seen.steps:
            seen.restorer = copy.deepcopy(self.restorer)
            seen.denoiser = copy.deepcopy(self.denoiser.state_dict())
        seen.steps.append((batch, draws))
        return forward(self, batch, draws, progress)

    monkeypatch.setattr(NoiseSpace, "forward", watch)
    monkeypatch.setenv("PIPELINE_CHECKPOINTS", str(folder / "checkpoints"))
    write_images(folder / "images")
    settings = replace(
        TRAIN, steps=UPDATES, pretrain_steps=0, initialization="kaiming", learning_rate=RATE,
        learning_rate_decay="none",
    )  # fmt: skip
    changes = {"train": settings, "last_step": UPDATES, "keeps": "state"}
    networks = {"restorer": UNetSettings(kind="unet", levels=3, channels=8)}
    train(job(folder / "images", folder / "run", METHOD, **changes, **networks))
    state, _ = load_tensors(folder / "run" / STATE_FILE)
    prefix = "networks."
    return {n.removeprefix(prefix): v for n, v in state.items() if n.startswith(prefix)}, seen


def by_hand(seen: Seen) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the weights before and after the release's updates, under the training's names."""
    restorer, unet = copy.deepcopy(seen.restorer), plain_unet(seen.denoiser)
    assert restorer is not None
    networks: dict[str, nn.Module] = {"restorer": restorer, "denoiser.unet": unet}

    def weights() -> dict[str, Tensor]:
        return {
            f"{name}.{parameter}": value.detach().clone()
            for name, network in networks.items()
            for parameter, value in network.named_parameters()
        }

    first = weights()
    optimizer = torch.optim.Adam([*restorer.parameters(), *unet.parameters()], lr=RATE)
    for done, (batch, draws) in enumerate(seen.steps):
        epoch = 1 + done * len(batch.clean) // SYNTHETIC_IMAGES
        optimizer.zero_grad()
        release_loss(restorer, unet, batch, draws, epoch).backward()
        optimizer.step()
    return first, weights()


def plain_unet(weights: dict[str, Tensor]) -> UNet2DModel:
    """Return diffusers' network with the release's settings and a training's first weights."""
    unet = UNet2DModel(
        in_channels=9,
        out_channels=3,
        block_out_channels=(32, 64),
        layers_per_block=2,
        down_block_types=("ResnetDownsampleBlock2D",) * 2,
        up_block_types=("ResnetUpsampleBlock2D",) * 2,
        resnet_time_scale_shift="scale_shift",
        attention_head_dim=32,
        norm_num_groups=32,
        attn_norm_num_groups=32,
    )
    unet.load_state_dict({name.removeprefix("unet."): value for name, value in weights.items()})
    return unet


def release_loss(
    restorer: nn.Module, unet: UNet2DModel, batch: Batch, draws: NoiseSpaceDraws, epoch: int
) -> Tensor:
    """Return L = L_res + w L_dif, image by image where images differ."""
    x_s, y_s, x_r = batch.synthetic, batch.clean, batch.real
    y_hat_s, y_hat_r = restorer(x_s), restorer(x_r)
    l_res = torch.sqrt((y_hat_s - y_s) ** 2 + 1e-6).mean()

    betas = torch.linspace(1e-6, 0.01, 1000, dtype=torch.float64)
    alpha_bar = torch.cumprod(1 - betas, 0)
    t, u, eps = draws.diffusion_step, draws.fraction, draws.noise
    a = (alpha_bar[t - 1] + u * (alpha_bar[t] - alpha_bar[t - 1])).float()
    levels = a.tolist()
    noisy = [
        math.sqrt(level) * y + math.sqrt(1 - level) * e
        for level, y, e in zip(levels, y_s, eps, strict=True)
    ]

    def error(c1: Tensor, c2: Tensor, exchanged: Tensor) -> Tensor:
        rows = [
            torch.cat([n, second, first] if exchange else [n, first, second])
            for n, first, second, exchange in zip(noisy, c1, c2, exchanged, strict=True)
        ]
        return ((unet(torch.stack(rows), a).sample - eps) ** 2).mean()

    d_pos = error(y_hat_s, y_hat_r, draws.shuffled)
    d_neg = error(x_s + (y_hat_r - x_r), x_r + (y_hat_s - x_s), draws.shuffled_negative)
    l_con = torch.clamp(d_pos - d_neg + 0.1, min=0)
    l_dif = (d_pos + l_con) / 2
    p = min(epoch / METHOD.ramp, 1)
    w = 0.2 * (2 / (1 + math.exp(-5 * p)) - 1)
    return l_res + w * l_dif


def test_six_joint_updates_are_those_of_the_release(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, seen = trained(tmp_path, monkeypatch)
    first, last = by_hand(seen)
    assert len(seen.steps) == UPDATES
    # what softmax does not see has no gradient but rounding noise, which Adam makes large
    names = [name for name in last if not name.endswith("to_k.bias")]

    def norm(network: str, one: dict[str, Tensor], other: dict[str, Tensor]) -> Tensor:
        chosen = [name for name in names if name.startswith(network)]
        return torch.cat([(one[name] - other[name]).flatten() for name in chosen]).norm()

    zeros = {name: torch.zeros_like(value) for name, value in last.items()}
    for network in ("restorer", "denoiser"):
        assert norm(network, found, last) < 1e-5 * norm(network, last, zeros), network
    # and of how far they moved, in which an error of 1 % of the weight w shows as 0.5 %
    assert norm("restorer", found, last) < 1e-4 * norm("restorer", last, first)
