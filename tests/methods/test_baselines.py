"""The baselines' losses by hand, and each of them on a problem whose answer is known."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.config.methods import TrainedMethod
from pipeline.datasets.batches import Batch
from pipeline.methods.adversarial import (
    domain_loss,
    fooled,
    frozen,
    pairwise_squared_error,
    reverse_gradient,
    rising,
)
from pipeline.methods.bottleneck import Bottleneck
from pipeline.methods.losses import charbonnier
from pipeline.methods.method import Progress, build_method
from pipeline.models.adversarial import Discriminator, DomainClassifier, Generator
from pipeline.models.restorers.unet import UNet
from pipeline.runtime.errors import UserError
from tests.helpers.training_job import BASELINES

SIZE = 16
SHIFT = 0.2
HALFWAY = Progress(step=1, epoch=1, fraction=0.5)


class TwoLayers(nn.Module):
    """The smallest restorer with features: x + last(features(x))."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 4, 3, padding=1)
        self.last = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        residual: Tensor = self.last(F.leaky_relu(self.features(images), 0.2))
        return images + residual


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def brighter(count: int = 4) -> Batch:
    """Grey noise; the real domain is brighter by SHIFT, and that is all that sets it apart."""
    clean = 0.4 + 0.05 * torch.randn(count, 3, SIZE, SIZE)
    other = 0.4 + 0.05 * torch.randn(count, 3, SIZE, SIZE)
    return Batch(clean, clean, other + SHIFT, truth=other)


def learn(
    method: TrainedMethod,
    steps: int,
    make: Callable[[], Batch] = brighter,
    rate: float = 3e-3,
    restorer: nn.Module | None = None,
) -> tuple[Any, list[dict[str, float]]]:
    """Train as the engine does: one loss, one gradient, all networks at once."""
    adaptation = build_method(restorer or TwoLayers(), method)
    extra = [v for k, v in adaptation.named_parameters() if not k.startswith("restorer.")]
    optimizer = torch.optim.Adam(adaptation.restorer.parameters(), rate)
    if extra:
        betas = (adaptation.momentum() or 0.9, 0.999)
        optimizer.add_param_group({"params": extra, "betas": betas})
    generator = torch.Generator().manual_seed(0)
    log = []
    for step in range(steps):
        batch = make()
        draws = adaptation.draw(generator, tuple(batch.real.shape))
        terms = adaptation(batch, draws, Progress(step, 0, step / steps))
        optimizer.zero_grad()
        terms["total"].backward()
        optimizer.step()
        log.append({name: value.item() for name, value in terms.items()})
    return adaptation, log


def last(log: list[dict[str, float]], name: str) -> float:
    """Return the mean of a term over the last steps."""
    return sum(row[name] for row in log[-20:]) / 20


# What they share


def test_the_reversed_gradient_by_hand() -> None:
    values = torch.tensor([1.0, -2.0], requires_grad=True)
    seen = reverse_gradient(values, 0.5)
    assert torch.equal(seen, values)
    (3 * seen).sum().backward()
    assert values.grad is not None and values.grad.tolist() == [-1.5, -1.5]


def test_the_reversal_rises_from_nothing_to_one() -> None:
    assert rising(0) == 0
    assert rising(0.1) == pytest.approx((1 - math.exp(-1)) / (1 + math.exp(-1)))
    assert 0.999 < rising(1) < 1


def test_cross_entropies_are_torchs() -> None:
    first, second = torch.randn(5), torch.randn(5)
    ones, zeros = torch.ones(5), torch.zeros(5)
    entropy = F.binary_cross_entropy_with_logits
    expected = (entropy(first, ones) + entropy(second, zeros)) / 2
    torch.testing.assert_close(domain_loss(first, second), expected)
    torch.testing.assert_close(fooled(first), entropy(first, ones))
    assert domain_loss(zeros, zeros).item() == pytest.approx(math.log(2))


def test_a_frozen_network_says_the_same_and_does_not_learn() -> None:
    discriminator = Discriminator(4).eval()
    images = torch.rand(2, 3, SIZE, SIZE, requires_grad=True)
    said = frozen(discriminator, images)
    assert torch.equal(said, discriminator(images))
    fooled(said).backward()
    assert images.grad is not None and images.grad.abs().sum() > 0
    assert all(value.grad is None for value in discriminator.parameters())


def test_a_change_of_all_pixels_by_one_value_is_free() -> None:
    images = torch.rand(2, 3, 4, 4)
    assert pairwise_squared_error(images + 0.3, images).item() == pytest.approx(0, abs=1e-6)
    # half of the pixels by 1: mean square 1/2, squared mean 1/4
    half = torch.cat([torch.ones(1, 3, 1, 2), torch.zeros(1, 3, 1, 2)], dim=3)
    assert pairwise_squared_error(half, 0 * half).item() == pytest.approx(0.25)


@pytest.mark.parametrize("make", [lambda: Discriminator(8), lambda: DomainClassifier(3, 8)])
def test_what_is_played_against_has_a_bounded_slope(make: Callable[[], nn.Module]) -> None:
    """The largest singular value of every layer is 1, however large its weights have grown."""
    network = make()
    with torch.no_grad():
        for value in network.parameters():
            value.mul_(100)
    for _ in range(100):  # one step of the power iteration each
        network(torch.rand(1, 3, SIZE, SIZE))
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    assert len(layers) == 3
    for layer in layers:
        slope = torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2)
        assert slope.item() == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("name", BASELINES)
def test_half_precision_reaches_every_network(name: str) -> None:
    """In bfloat16 too every weight has a gradient, also where a pass without one came between."""
    adaptation = build_method(TwoLayers(), BASELINES[name])
    batch = brighter()
    draws = adaptation.draw(torch.Generator().manual_seed(0), tuple(batch.real.shape))
    with torch.autocast("cpu", torch.bfloat16):
        terms = adaptation(batch, draws, HALFWAY)
    terms["total"].backward()
    assert all(value.grad is not None for value in adaptation.parameters())
    assert all(value.dtype == torch.float32 for value in terms.values())


def test_a_new_generator_changes_nothing() -> None:
    images = torch.rand(2, 3, SIZE, SIZE)
    assert torch.equal(Generator(4, 2)(images), images)
    assert torch.equal(Generator(4, 2, 3)(images, torch.randn(2, 3, SIZE, SIZE)), images)


# The place of the features


def test_the_bottleneck_of_the_unet_is_its_lowest_level() -> None:
    restorer = UNet(levels=3, channels=4)
    place = Bottleneck(restorer)
    assert (place.name, place.channels, place.factor) == ("down_path.2", 16, 4)
    images = torch.rand(2, 3, SIZE, SIZE)
    restored, features = place.read(restorer, images)
    assert torch.equal(restored, restorer(images))
    assert features.shape == (2, 16, SIZE // 4, SIZE // 4)
    assert restorer.training
    assert not any(module._forward_hooks for module in restorer.modules())


class Twice(nn.Module):
    """Features come from one layer that runs twice; what follows them changes them in place."""

    bottleneck = "features"

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.features = nn.Conv2d(4, 4, 3, padding=1)
        self.last = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        features = self.features(self.features(self.first(images)).tanh())
        restored: Tensor = images + self.last(F.leaky_relu(features, 0.2, inplace=True))
        return restored


@pytest.mark.parametrize("make", [lambda: UNet(levels=3, channels=4), TwoLayers, Twice])
def test_the_pass_for_features_alone_ends_where_they_are(make: Callable[[], nn.Module]) -> None:
    """The same features and gradients as in a whole pass, and no module after them runs."""
    restorer = make()
    place = Bottleneck(restorer)
    images = torch.rand(2, 3, SIZE, SIZE)
    weights = list(restorer.parameters())
    found = []
    for features in (place.read(restorer, images)[1], place.features(restorer, images)):
        loss = (features * torch.linspace(-1, 1, features.numel()).view_as(features)).sum()
        found.append([features, *torch.autograd.grad(loss, weights, allow_unused=True)])
    for whole, alone in zip(*found, strict=True):
        assert (whole is None) == (alone is None)
        assert whole is None or torch.equal(whole, alone)

    ran: list[str] = []
    for name, module in restorer.named_modules():
        module.register_forward_pre_hook(lambda module, given, name=name: ran.append(name))
    place.features(restorer, images)
    assert ran.count(place.name) == (2 if isinstance(restorer, Twice) else 1)
    assert not [name for name in ran if name.startswith(("up_path", "last"))]
    restorer(images)
    assert "last" in ran, "no hook is left behind"


@pytest.mark.parametrize("name", ["dann", "dsn", "cycada"])
def test_the_decoder_runs_for_synthetic_images_alone(name: str) -> None:
    adaptation = build_method(TwoLayers(), BASELINES[name])
    seen: list[Tensor] = []
    adaptation.restorer.last.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    adaptation(brighter(), None, HALFWAY)
    assert len(seen) == (2 if name == "cycada" else 1), "CyCADA's: as they are, and made real"


def test_a_restorer_of_one_size_gives_its_last_features() -> None:
    layers = [nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 6, 3, padding=1), nn.ReLU()]
    plain = nn.Sequential(*layers, nn.Conv2d(6, 3, 3, padding=1))
    place = Bottleneck(plain)
    assert (place.name, place.channels, place.factor) == ("3", 6, 1)
    plain.bottleneck = "0"
    assert Bottleneck(plain).channels == 5
    plain.bottleneck = "elsewhere"
    with pytest.raises(UserError, match=r"Sequential: found no feature map 'elsewhere'"):
        Bottleneck(plain)
    with pytest.raises(UserError, match=r"name a module in its attribute 'bottleneck'"):
        Bottleneck(nn.Identity())


def test_what_does_not_grow_with_the_image_is_no_feature_map() -> None:
    """Pooled to one place it is a feature of the whole image, as in channel attention."""
    layers = [nn.Conv2d(3, 5, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Conv2d(5, 4, 1)]
    place = Bottleneck(nn.Sequential(*layers))
    assert (place.name, place.channels, place.factor) == ("0", 5, 1)


def test_a_restorer_that_takes_no_probe_is_told() -> None:
    with pytest.raises(UserError, match=r"Conv2d: an image of 64x64 pixels.* ended with: "):
        Bottleneck(nn.Conv2d(4, 3, 1))


# The sign of the reversal


def test_dann_descends_for_the_classifier_and_ascends_for_the_restorer() -> None:
    """Against the gradients of each loss alone."""
    adaptation = build_method(TwoLayers(), BASELINES["dann"]).eval()
    batch = brighter()
    place, restorer = adaptation.bottleneck, adaptation.restorer
    restored, synthetic = place.read(restorer, batch.synthetic)
    _, real = place.read(restorer, batch.real)
    restoration = charbonnier(restored, batch.clean)
    domain = domain_loss(adaptation.classifier(synthetic), adaptation.classifier(real))
    weights = [restorer.features.weight, *adaptation.classifier.parameters()]
    of_restoration = torch.autograd.grad(restoration, weights[0], retain_graph=True)[0]
    of_domain = torch.autograd.grad(domain, weights)

    terms = adaptation(batch, None, HALFWAY)
    terms["total"].backward()
    strength = BASELINES["dann"].weight * rising(0.5)  # type: ignore[union-attr]
    torch.testing.assert_close(weights[0].grad, of_restoration - strength * of_domain[0])
    for weight, gradient in zip(weights[1:], of_domain[1:], strict=True):
        torch.testing.assert_close(weight.grad, gradient)
    torch.testing.assert_close(terms["domain"], domain)


def test_the_restoration_loss_of_dann_is_told_in_parts_of_the_span() -> None:
    adaptation = build_method(TwoLayers(), BASELINES["dann"]).eval()
    terms = adaptation(replace(brighter(), span=2.0), None, HALFWAY)
    torch.testing.assert_close(terms["total"], terms["restoration"] / 2 + terms["domain"])


@pytest.mark.parametrize(
    ("name", "weight"), [("dsn", "similarity_weight"), ("cycada", "feature_weight")]
)
def test_the_reversal_within_a_larger_loss(name: str, weight: str) -> None:
    """Against gradients by hand: the domain loss ascends for the restorer, by its weight alone."""
    gradients = {}
    for strength in (0.0, 0.3):
        torch.manual_seed(1)
        method = replace(BASELINES[name], **{weight: strength})
        adaptation = build_method(TwoLayers(), method).eval()
        batch = brighter()
        adaptation(batch, None, HALFWAY)["total"].backward()
        gradients[strength] = {key: v.grad for key, v in adaptation.named_parameters()}

    place, restorer = adaptation.bottleneck, adaptation.restorer
    # a new generator changes nothing, so CyCADA's made images are the synthetic ones
    _, synthetic = place.read(restorer, batch.synthetic)
    _, real = place.read(restorer, batch.real)
    domain = domain_loss(adaptation.classifier(synthetic), adaptation.classifier(real))
    of_domain = dict(
        zip(
            gradients[0.0],
            torch.autograd.grad(domain, list(adaptation.parameters()), allow_unused=True),
            strict=True,
        )
    )
    for key, gradient in of_domain.items():
        before, after = gradients[0.0][key], gradients[0.3][key]
        if key.startswith("restorer.features"):
            torch.testing.assert_close(after - before, -0.3 * rising(0.5) * gradient)
            assert (after - before).abs().max() > 1e-5
        else:
            assert torch.equal(after, before), "nobody else feels the weight"
        if key.startswith("classifier"):
            torch.testing.assert_close(after, gradient)  # and it descends itself


def redder() -> Batch:
    """As ``brighter``; the real domain is also redder, which features of several channels tell."""
    batch = brighter()
    batch.real[:, 0] += 0.5
    return batch


def test_dann_hides_the_domain() -> None:
    method = replace(BASELINES["dann"], weight=0.0)
    _, seen = learn(method, 150, redder, rate=1e-2)
    _, hidden = learn(replace(method, weight=1.0), 150, redder, rate=1e-2)
    assert last(seen, "domain") < 0.3, "one value sets the domains apart: easy to tell"
    assert last(hidden, "domain") > 0.6, "guessing is ln 2 = 0.69"
