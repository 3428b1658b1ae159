"""The joint loss and its gradients, held against the authors' released code."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.adaptation.losses import charbonnier
from pipeline.adaptation.noise_space import (
    Adaptation,
    Draws,
    ramped_weight,
    shuffle_conditions,
    swap_residuals,
)
from pipeline.batches import Batch
from pipeline.config.learning import Denoiser as DenoiserSettings
from pipeline.config.learning import NoiseSchedule, NoiseSpace
from pipeline.diffusion import add_noise, alpha_bars, continuous_level

GOLDEN = Path(__file__).parent / "golden" / "noise_da_loss.npz"
TOLERANCE = 1e-6


class LinearRestorer(nn.Module):
    """The golden file's restorer: x + W x + b over channels."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    def forward(self, image: Tensor) -> Tensor:
        residual = torch.einsum("oc,bchw->bohw", self.weight, image) + self.bias.view(1, -1, 1, 1)
        return image + residual


class LinearDenoiser(nn.Module):
    """The golden file's denoiser: W [noisy, c1, c2] + c a."""

    def __init__(self, weight: Tensor, level_weight: Tensor) -> None:
        super().__init__()
        self.weight, self.level_weight = nn.Parameter(weight), nn.Parameter(level_weight)

    def forward(self, noisy: Tensor, conditions: Tensor, level: Tensor) -> Tensor:
        images = torch.cat([noisy, conditions], dim=1)
        mixed = torch.einsum("oc,bchw->bohw", self.weight, images)
        return mixed + self.level_weight.view(1, -1, 1, 1) * level.view(-1, 1, 1, 1)


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with np.load(GOLDEN) as file:
        return {name: torch.from_numpy(np.asarray(file[name])) for name in file.files}


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def settings(**changes: object) -> NoiseSpace:
    values: dict[str, object] = {
        "adaptation": "noise_space",
        "start": "scratch",
        "weight": 0.2,
        "ramp_steps": 1,
        "margin": 0.1,
        "channel_shuffling": True,
        "residual_swapping": True,
        "conditions": "both",
        "diffusion_step_range": (1, 999),
        "denoiser_learning_rate": 1e-4,
        "schedule": NoiseSchedule(1000, 1e-6, 0.01),
        "denoiser": DenoiserSettings((8, 16), 1, 1, 8, 4, 0.0),
    }
    return NoiseSpace(**{**values, **changes})  # type: ignore[arg-type]


def golden_adaptation(golden: dict[str, Tensor], **changes: object) -> Adaptation:
    restorer = LinearRestorer(golden["restorer_W"].clone(), golden["restorer_b"].clone())
    adaptation = Adaptation(restorer, settings(**changes))
    adaptation.denoiser = LinearDenoiser(golden["denoiser_W"].clone(), golden["denoiser_c"].clone())
    adaptation.levels = golden["gammas"].double()
    return adaptation


def golden_draws(golden: dict[str, Tensor]) -> Draws:
    return Draws(
        noise=golden["noise"],
        diffusion_step=golden["t"],
        fraction=golden["u"].flatten(),
        shuffled=golden["swap_draw"] > 0.5,
        shuffled_negative=golden["negative_swap_draw"] > 0.5,
    )


def close(found: Tensor | None, expected: Tensor) -> None:
    assert found is not None
    torch.testing.assert_close(found.detach(), expected.to(found.dtype), rtol=TOLERANCE, atol=1e-12)


def test_vanilla_loss_and_gradient(golden: dict[str, Tensor]) -> None:
    restorer = LinearRestorer(golden["restorer_W"].clone(), golden["restorer_b"].clone())
    loss = charbonnier(restorer(golden["synthetic"]), golden["clean"])
    loss.backward()
    close(loss, golden["loss_vanilla"])
    close(restorer.weight.grad, golden["grad_vanilla_W"])


def test_method_loss_and_gradients(golden: dict[str, Tensor]) -> None:
    adaptation = golden_adaptation(golden)
    batch = Batch(golden["synthetic"], golden["clean"], golden["real"])
    terms = adaptation(batch, golden_draws(golden), progress=10**9)
    close(terms["diffusion"], golden["loss_noise_1"])
    close(terms["restoration"], golden["loss_syn_1"])
    # the golden gradients are of L_res + 0.2 L_dif; the ramp ends a little lower
    (terms["restoration"] + 0.2 * terms["diffusion"]).backward()
    close(adaptation.restorer.weight.grad, golden["grad_restorer_W_1"])
    close(adaptation.restorer.bias.grad, golden["grad_restorer_b_1"])
    close(adaptation.denoiser.weight.grad, golden["grad_denoiser_W_1"])
    close(adaptation.denoiser.level_weight.grad, golden["grad_denoiser_c_1"])


def test_total_is_restoration_plus_ramped_diffusion(golden: dict[str, Tensor]) -> None:
    adaptation = golden_adaptation(golden, weight=3.0, ramp_steps=10)
    batch = Batch(golden["synthetic"], golden["clean"], golden["real"])
    terms = adaptation(batch, golden_draws(golden), progress=4)
    expected = terms["restoration"] + ramped_weight(3.0, 4, 10) * terms["diffusion"]
    torch.testing.assert_close(terms["total"], expected)


def test_without_residual_swapping_the_diffusion_loss_is_the_positive_error(
    golden: dict[str, Tensor],
) -> None:
    batch = Batch(golden["synthetic"], golden["clean"], golden["real"])
    draws = golden_draws(golden)
    with_swapping = golden_adaptation(golden)(batch, draws, 1)
    without = golden_adaptation(golden, residual_swapping=False)(batch, draws, 1)
    torch.testing.assert_close(without["diffusion"], with_swapping["positive_error"])
    assert "negative_error" not in without


@pytest.mark.parametrize("margin", [0.0, 0.1, 5.0])
def test_contrast_is_the_hinge_of_the_two_errors(golden: dict[str, Tensor], margin: float) -> None:
    batch = Batch(golden["synthetic"], golden["clean"], golden["real"])
    terms = golden_adaptation(golden, margin=margin)(batch, golden_draws(golden), 1)
    gap = terms["positive_error"] - terms["negative_error"]
    torch.testing.assert_close(terms["contrast"], (gap + margin).clamp(min=0))
    expected = (terms["positive_error"] + terms["contrast"]) / 2
    torch.testing.assert_close(terms["diffusion"], expected)


def test_shuffle_exchanges_only_the_chosen_images() -> None:
    first, second = torch.zeros(3, 3, 2, 2), torch.ones(3, 3, 2, 2)
    a, b = shuffle_conditions(first, second, torch.tensor([True, False, True]))
    assert a[:, 0, 0, 0].tolist() == [1, 0, 1]
    assert b[:, 0, 0, 0].tolist() == [0, 1, 0]


def test_swapped_residuals_by_hand() -> None:
    one = torch.ones(1, 3, 2, 2)
    # residuals: synthetic 0.7 - 0.5 = 0.2, real 0.4 - 0.1 = 0.3
    negatives = swap_residuals(0.5 * one, 0.7 * one, 0.1 * one, 0.4 * one)
    torch.testing.assert_close(negatives[0], 0.8 * one)
    torch.testing.assert_close(negatives[1], 0.3 * one)


@pytest.mark.parametrize("conditions", ["synthetic", "real"])
def test_a_single_condition_ignores_the_other_domain(conditions: str) -> None:
    torch.manual_seed(0)
    adaptation = Adaptation(nn.Identity(), settings(conditions=conditions, residual_swapping=False))
    images = torch.rand(4, 2, 3, 16, 16)
    draws = adaptation.draw(torch.Generator().manual_seed(0), images[0])
    base = adaptation(Batch(images[0], images[1], images[2]), draws, 1)["positive_error"]
    other_real = adaptation(Batch(images[0], images[1], images[3]), draws, 1)["positive_error"]
    assert (base == other_real) == (conditions == "synthetic")


def test_draws_cover_the_range_and_depend_on_the_generator_alone() -> None:
    adaptation = Adaptation(nn.Identity(), settings(diffusion_step_range=(3, 5)))
    clean = torch.zeros(400, 3, 1, 1)
    draws = adaptation.draw(torch.Generator().manual_seed(1), clean)
    again = adaptation.draw(torch.Generator().manual_seed(1), clean)
    assert set(draws.diffusion_step.tolist()) == {3, 4, 5}
    assert draws.fraction.min() >= 0 and draws.fraction.max() < 1
    assert 150 < draws.shuffled.sum() < 250
    assert (draws.shuffled != draws.shuffled_negative).any()
    for name, value in vars(draws).items():
        assert torch.equal(value, getattr(again, name))


def test_schedule_by_hand(golden: dict[str, Tensor]) -> None:
    levels = alpha_bars(NoiseSchedule(3, 0.1, 0.3))
    torch.testing.assert_close(levels, torch.tensor([0.9, 0.9 * 0.8, 0.9 * 0.8 * 0.7]))
    paper = alpha_bars(NoiseSchedule(1000, 1e-6, 0.01))
    # the golden file's values went through float32
    torch.testing.assert_close(paper, golden["gammas"].double(), rtol=1e-6, atol=0)


def test_level_lies_between_its_neighbours() -> None:
    levels = torch.tensor([0.9, 0.5, 0.1])
    found = continuous_level(levels, torch.tensor([1, 2]), torch.tensor([0.25, 0.5]))
    torch.testing.assert_close(found, torch.tensor([0.8, 0.3]))


def test_noising_by_hand() -> None:
    clean, noise = torch.full((1, 3, 1, 1), 2.0), torch.full((1, 3, 1, 1), 5.0)
    found = add_noise(clean, noise, torch.tensor([0.64]))
    torch.testing.assert_close(found, torch.full((1, 3, 1, 1), 0.8 * 2 + 0.6 * 5))


def test_ramp_by_hand() -> None:
    assert ramped_weight(0.2, 0, 100) == 0
    assert ramped_weight(0.2, 50, 100) == pytest.approx(0.2 * (2 / (1 + np.exp(-2.5)) - 1))
    assert ramped_weight(0.2, 100, 100) == ramped_weight(0.2, 10**9, 100)
    assert ramped_weight(0.2, 100, 100) == pytest.approx(0.2 * 0.98661, rel=1e-5)
