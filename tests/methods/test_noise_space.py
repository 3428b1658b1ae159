"""The joint loss and its gradients, held against the authors' released code."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pipeline.config.denoiser import DenoiserSettings, NoiseSchedule
from pipeline.config.methods import NoiseSpaceSettings
from pipeline.datasets.batches import Batch
from pipeline.methods.diffusion import add_noise, alpha_bars, continuous_level
from pipeline.methods.losses import charbonnier
from pipeline.methods.method import Progress
from pipeline.methods.noise_space import (
    NoiseSpace,
    NoiseSpaceDraws,
    ramped_weight,
    shuffle_conditions,
    swap_residuals,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "noise_da_loss.npz"
TOLERANCE = 1e-6
START = Progress(step=1, epoch=1, fraction=0.0)


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


def settings(**changes: object) -> NoiseSpaceSettings:
    values: dict[str, object] = {
        "kind": "noise_space",
        "start": "scratch",
        "weight": 0.2,
        "ramp": 1,
        "ramp_unit": "steps",
        "target": "paired",
        "margin": 0.1,
        "channel_shuffling": True,
        "residual_swapping": True,
        "conditions": "both",
        "diffusion_step_range": (1, 999),
        "denoiser_learning_rate_factor": 1.0,
        "schedule": NoiseSchedule(1000, 1e-6, 0.01),
        "denoiser": DenoiserSettings((8, 16), 1, 1, 8, 4, 0.0),
    }
    return NoiseSpaceSettings(**{**values, **changes})  # type: ignore[arg-type]


def golden_adaptation(golden: dict[str, Tensor], **changes: object) -> NoiseSpace:
    restorer = LinearRestorer(golden["restorer_W"].clone(), golden["restorer_b"].clone())
    adaptation = NoiseSpace(restorer, settings(**changes))
    adaptation.denoiser = LinearDenoiser(golden["denoiser_W"].clone(), golden["denoiser_c"].clone())
    adaptation.levels = golden["gammas"].double()
    return adaptation


def golden_draws(golden: dict[str, Tensor]) -> NoiseSpaceDraws:
    return NoiseSpaceDraws(
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
    terms = adaptation(batch, golden_draws(golden), Progress(10**9, 0, 1.0))
    close(terms["diffusion"], golden["loss_noise_1"])
    close(terms["restoration"], golden["loss_syn_1"])
    # the golden gradients are of L_res + 0.2 L_dif; the ramp ends a little lower
    (terms["restoration"] + 0.2 * terms["diffusion"]).backward()
    close(adaptation.restorer.weight.grad, golden["grad_restorer_W_1"])
    close(adaptation.restorer.bias.grad, golden["grad_restorer_b_1"])
    close(adaptation.denoiser.weight.grad, golden["grad_denoiser_W_1"])
    close(adaptation.denoiser.level_weight.grad, golden["grad_denoiser_c_1"])


def test_unpaired_extension_loss_and_gradients(golden: dict[str, Tensor]) -> None:
    adaptation = golden_adaptation(golden, target="unpaired", residual_swapping=False)
    assert adaptation.wants == ("unpaired",)
    images = (golden[name] for name in ("synthetic", "clean", "real", "unpaired_clean"))
    terms = adaptation(Batch(*images), golden_draws(golden), START)
    close(terms["diffusion"], golden["loss_noise_2"])
    close(terms["restoration"], golden["loss_syn_2"])
    (terms["restoration"] + 0.2 * terms["diffusion"]).backward()
    close(adaptation.restorer.weight.grad, golden["grad_restorer_W_2"])
    close(adaptation.restorer.bias.grad, golden["grad_restorer_b_2"])
    close(adaptation.denoiser.weight.grad, golden["grad_denoiser_W_2"])
    close(adaptation.denoiser.level_weight.grad, golden["grad_denoiser_c_2"])


def test_gradient_norms_are_those_of_the_two_terms(golden: dict[str, Tensor]) -> None:
    """Against the gradients of each term alone, taken at the restored images."""
    adaptation = golden_adaptation(golden, weight=3.0)
    batch = Batch(golden["synthetic"], golden["clean"], golden["real"])
    restored: list[Tensor] = []

    def keep(module: nn.Module, given: tuple[Tensor], output: Tensor) -> None:
        output.retain_grad()
        restored.append(output)

    adaptation.restorer.register_forward_hook(keep)
    progress = Progress(10**6, 0, 1.0)
    adaptation(batch, golden_draws(golden), progress)["total"].backward()
    found = dict(adaptation.gradient_norms)
    restored.clear()
    adaptation(batch, golden_draws(golden), progress)["restoration"].backward()
    close(found["restoration_gradient"], restored[0].grad.norm())
    restored.clear()
    weight = ramped_weight(3.0, 10**6, 1)
    terms = adaptation(batch, golden_draws(golden), progress)
    (weight * terms["diffusion"]).backward()
    close(found["diffusion_gradient"], restored[0].grad.norm())


def test_ramp_counts_steps_or_epochs(golden: dict[str, Tensor]) -> None:
    batch = Batch(golden["synthetic"], golden["clean"], golden["real"])
    for unit, done in (("steps", 6), ("epochs", 2)):
        adaptation = golden_adaptation(golden, ramp=10, ramp_unit=unit)
        terms = adaptation(batch, golden_draws(golden), Progress(step=6, epoch=2, fraction=0.5))
        expected = terms["restoration"] + ramped_weight(0.2, done, 10) * terms["diffusion"]
        torch.testing.assert_close(terms["total"], expected)


def test_measured_error_is_that_of_the_spoilt_condition(golden: dict[str, Tensor]) -> None:
    """A denoiser that trusts its conditions errs as much as they differ from the clean image."""

    class Trusting(nn.Module):
        """Takes the mean of the conditions for the clean image: what is left over is noise."""

        def forward(self, noisy: Tensor, conditions: Tensor, level: Tensor) -> Tensor:
            level = level.view(-1, 1, 1, 1)
            clean = (conditions[:, :3] + conditions[:, 3:]) / 2
            return (noisy - level.sqrt() * clean) / (1 - level).sqrt()

    torch.manual_seed(0)
    adaptation = NoiseSpace(nn.Identity(), settings(diffusion_step_range=(500, 500)))
    adaptation.denoiser = Trusting()
    synthetic, clean, real = torch.rand(3, 8, 3, 32, 32)
    batch = Batch(synthetic, clean, real)
    found = adaptation.measure(batch, torch.Generator().manual_seed(0), span=2.0)
    # a condition that is off by d makes an error of sqrt(a / (1 - a)) d; a varies little within
    # one diffusion step
    level = float(adaptation.levels[499:501].mean())
    expected = [level / (1 - level) * (2 * s / 255) ** 2 for s in found["condition_sigma_255"]]
    np.testing.assert_allclose(found["error"], expected, rtol=0.03, atol=1e-6)
    off = ((synthetic + real) / 2 - clean).square().mean()  # the restorer returns what it is given
    assert found["error_restored"] == pytest.approx(level / (1 - level) * float(off), rel=0.03)
    assert found["condition_sigma_255"][0] == 0 and found["condition_sigma_255"][-1] == 80


def test_total_is_restoration_plus_ramped_diffusion(golden: dict[str, Tensor]) -> None:
    adaptation = golden_adaptation(golden, weight=3.0, ramp=10)
    batch = Batch(golden["synthetic"], golden["clean"], golden["real"])
    terms = adaptation(batch, golden_draws(golden), Progress(4, 0, 0.5))
    expected = terms["restoration"] + ramped_weight(3.0, 4, 10) * terms["diffusion"]
    torch.testing.assert_close(terms["total"], expected)


def test_without_residual_swapping_the_diffusion_loss_is_the_positive_error(
    golden: dict[str, Tensor],
) -> None:
    batch = Batch(golden["synthetic"], golden["clean"], golden["real"])
    draws = golden_draws(golden)
    with_swapping = golden_adaptation(golden)(batch, draws, START)
    without = golden_adaptation(golden, residual_swapping=False)(batch, draws, START)
    torch.testing.assert_close(without["diffusion"], with_swapping["positive_error"])
    assert "negative_error" not in without


@pytest.mark.parametrize("margin", [0.0, 0.1, 5.0])
def test_contrast_is_the_hinge_of_the_two_errors(golden: dict[str, Tensor], margin: float) -> None:
    batch = Batch(golden["synthetic"], golden["clean"], golden["real"])
    terms = golden_adaptation(golden, margin=margin)(batch, golden_draws(golden), START)
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
    adaptation = NoiseSpace(nn.Identity(), settings(conditions=conditions, residual_swapping=False))
    images = torch.rand(4, 2, 3, 16, 16)
    draws = adaptation.draw(torch.Generator().manual_seed(0), images[0].shape)
    base = adaptation(Batch(images[0], images[1], images[2]), draws, START)["positive_error"]
    other_real = adaptation(Batch(images[0], images[1], images[3]), draws, START)["positive_error"]
    assert (base == other_real) == (conditions == "synthetic")


def test_draws_cover_the_range_and_depend_on_the_generator_alone() -> None:
    adaptation = NoiseSpace(nn.Identity(), settings(diffusion_step_range=(3, 5)))
    clean = (400, 3, 1, 1)
    draws = adaptation.draw(torch.Generator().manual_seed(1), clean)
    again = adaptation.draw(torch.Generator().manual_seed(1), clean)
    assert set(draws.diffusion_step.tolist()) == {3, 4, 5}
    assert draws.fraction.min() >= 0 and draws.fraction.max() < 1
    assert 0.4 < draws.fraction.mean() < 0.6 and draws.fraction.std() > 0.25
    for half in (
        draws.shuffled, draws.shuffled_negative, draws.shuffled == draws.shuffled_negative,
    ):  # fmt: skip
        assert 150 < half.sum() < 250
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
