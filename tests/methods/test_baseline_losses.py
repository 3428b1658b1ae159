"""The losses of DSN, PixelDA, CyCADA, Neighbor2Neighbor and the bound."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.datasets.batches import Batch
from pipeline.methods.adversarial import (
    domain_loss,
    fooled,
    pairwise_squared_error,
)
from pipeline.methods.ap_bsn import AROUND, downsample, hide
from pipeline.methods.dsn import correlation
from pipeline.methods.losses import charbonnier
from pipeline.methods.method import build_method
from pipeline.methods.neighbor2neighbor import NEIGHBOURS, neighbours
from pipeline.models.adversarial import DomainClassifier
from tests.helpers.training_job import BASELINES
from tests.methods import test_baselines
from tests.methods.test_baselines import (
    HALFWAY,
    SHIFT,
    SIZE,
    TwoLayers,
    brighter,
    last,
    learn,
    redder,
)

seeded = test_baselines.seeded


# DSN: private and shared codes differ


def test_correlation_by_hand() -> None:
    wave = torch.tensor([1.0, -1.0, 1.0, -1.0]).view(1, 1, 2, 2)
    other = torch.tensor([1.0, 1.0, -1.0, -1.0]).view(1, 1, 2, 2)
    assert correlation(wave, 5 + 3 * wave).item() == pytest.approx(1)
    assert correlation(wave, other).item() == pytest.approx(0)


def test_what_a_code_is_on_an_images_mean_costs_no_difference() -> None:
    shared, private = torch.randn(2, 1, 1, 4, 4)
    moved = correlation(shared + 3, private - 5)
    torch.testing.assert_close(moved, correlation(shared, private))


@pytest.mark.parametrize("span", [1.0, 2.0])
def test_the_total_of_dsn_by_hand(span: float) -> None:
    weights = {"reconstruction_weight": 3.0, "difference_weight": 5.0, "similarity_weight": 7.0}
    adaptation = build_method(TwoLayers(), replace(BASELINES["dsn"], **weights)).eval()
    batch = replace(brighter(), span=span)
    terms = adaptation(batch, None, HALFWAY)

    reconstruction = difference = torch.zeros(())
    judged = []
    for images, encoder in (
        (batch.synthetic, adaptation.synthetic_encoder),
        (batch.real, adaptation.real_encoder),
    ):
        _, shared = adaptation.bottleneck.read(adaptation.restorer, images)
        private = encoder(images)
        change = (adaptation.decoder(shared + private) - images).flatten(1) / span
        reconstruction = reconstruction + change.var(1, correction=0).mean()
        difference = difference + correlation(shared, private)
        judged.append(adaptation.classifier(shared))
    torch.testing.assert_close(terms["reconstruction"], reconstruction)
    torch.testing.assert_close(terms["difference"], difference)
    torch.testing.assert_close(terms["domain"], domain_loss(*judged))
    restoration = charbonnier(adaptation.restorer(batch.synthetic), batch.clean)
    torch.testing.assert_close(
        terms["total"],
        # the weight of the similarity is that of its reversed gradient
        restoration / span + 3 * reconstruction + 5 * difference + domain_loss(*judged),
    )


def told_by_a_new_classifier(codes: Callable[[], list[Tensor]]) -> float:
    """Return its last cross-entropies: how well a domain can be read from codes that stay."""
    classifier, log = DomainClassifier(4, 8), []
    optimizer = torch.optim.Adam(classifier.parameters(), 2e-2)
    for _ in range(80):
        domain = domain_loss(*map(classifier, codes()))
        optimizer.zero_grad()
        domain.backward()
        optimizer.step()
        log.append({"domain": domain.item()})
    return last(log, "domain")


def test_dsn_holds_the_domain_in_the_private_codes() -> None:
    weights = {"reconstruction_weight": 1.0, "difference_weight": 1.0}
    method = replace(BASELINES["dsn"], **weights, similarity_weight=3.0)
    adaptation, _ = learn(method, 400, redder)

    @torch.no_grad()
    def shared() -> list[Tensor]:
        batch, place = redder(), adaptation.bottleneck
        return [place.features(adaptation.restorer, x) for x in (batch.synthetic, batch.real)]

    @torch.no_grad()
    def private() -> list[Tensor]:
        batch = redder()
        return [adaptation.synthetic_encoder(batch.synthetic), adaptation.real_encoder(batch.real)]

    assert told_by_a_new_classifier(private) < 0.2
    assert told_by_a_new_classifier(shared) > 0.5, "guessing is ln 2 = 0.69"


def test_dsn_private_and_shared_codes_differ() -> None:
    method = replace(BASELINES["dsn"], reconstruction_weight=1.0, difference_weight=0.0)
    _, alike = learn(method, 200)
    adaptation, apart = learn(replace(method, difference_weight=1.0), 200)
    assert last(apart, "difference") < 0.2 * last(alike, "difference")
    assert last(apart, "reconstruction") < 0.5 * apart[0]["reconstruction"]
    batch = brighter()
    _, shared = adaptation.bottleneck.read(adaptation.restorer, batch.real)
    private = adaptation.real_encoder(batch.real)
    assert correlation(shared, private).item() < 0.2 * correlation(shared, shared).item()
    assert private.var() > 0, "and the private code is not empty"


# PixelDA and CyCADA: the shift is found, the cycle closes


def test_pixel_da_makes_what_the_real_domain_looks_like() -> None:
    method = replace(BASELINES["pixel_da"], channels=16)
    adaptation, log = learn(method, 400)
    batch = brighter()
    made = adaptation.generator(batch.synthetic, torch.randn(batch.real.shape))
    assert (made - batch.synthetic).mean().item() == pytest.approx(SHIFT, abs=0.07)
    assert last(log, "domain") > 0.5, "the discriminator is near guessing"
    assert (made - batch.synthetic).std() < 0.1, "the picture was kept"


def test_pixel_da_keeps_the_picture_by_content_and_identity() -> None:
    """Real images are flat: to look like them, a generator that may do so wipes out the picture."""

    def flat() -> Batch:
        clean = 0.4 + 0.2 * torch.randn(4, 3, SIZE, SIZE)
        return Batch(clean, clean, 0.4 + 0.01 * torch.randn(4, 3, SIZE, SIZE))

    method = replace(BASELINES["pixel_da"], channels=16, adversarial_weight=1.0)
    lost = {}
    for weight in (0.0, 10.0):
        torch.manual_seed(0)
        chosen = replace(method, content_weight=weight, identity_weight=weight)
        adaptation, _ = learn(chosen, 200, flat)
        batch = flat()
        made = adaptation.generator(batch.synthetic, torch.randn(batch.real.shape))
        lost[weight] = pairwise_squared_error(made, batch.synthetic).item() / 0.2**2
    assert lost[0.0] > 0.08, "of the variance of the picture"
    assert lost[10.0] < 0.02


@pytest.mark.parametrize("span", [1.0, 2.0])
def test_the_total_of_pixel_da_by_hand(span: float) -> None:
    """With a generator that changes something: each term, and the share of each in the sum."""
    weights = {"content_weight": 3.0, "identity_weight": 5.0, "adversarial_weight": 7.0}
    adaptation = build_method(TwoLayers(), replace(BASELINES["pixel_da"], **weights)).eval()
    nn.init.normal_(adaptation.generator.last.weight, std=0.1)
    batch = replace(brighter(), span=span)
    draws = adaptation.draw(torch.Generator().manual_seed(0), tuple(batch.real.shape))
    terms = adaptation(batch, draws, HALFWAY)
    made, kept = (
        adaptation.generator(images, draws.noise) for images in (batch.synthetic, batch.real)
    )
    change = (made - batch.synthetic).flatten(1) / span
    content = ((change**2).mean(1) - change.mean(1) ** 2).mean()
    identity = (kept - batch.real).abs().mean() / span
    assert content > 1e-4 and identity > 1e-3
    torch.testing.assert_close(terms["content"], content)
    torch.testing.assert_close(terms["identity"], identity)
    restoration, of_made = (
        charbonnier(adaptation.restorer(images), batch.clean) for images in (batch.synthetic, made)
    )
    judged_real, judged_made = (adaptation.discriminator(images) for images in (batch.real, made))
    torch.testing.assert_close(
        terms["total"],
        (restoration + of_made) / (2 * span)
        + domain_loss(judged_real, judged_made)
        + 3 * content
        + 5 * identity
        + 7 * fooled(judged_made),
    )


@pytest.mark.parametrize(("name", "share"), [("pixel_da", 0.5), ("cycada", 0.0)])
def test_what_the_task_teaches_the_generator(name: str, share: float) -> None:
    """PixelDA's learns from L_t, CyCADA's from no loss of the restorer: against L_t by hand."""
    nothing = [key for key in vars(BASELINES[name]) if key.endswith("_weight")]
    method = replace(BASELINES[name], **dict.fromkeys(nothing, 0.0))
    if name == "cycada":
        method = replace(method, feature_weight=1.0)
    adaptation = build_method(TwoLayers(), method).eval()
    generator = adaptation.generator if name == "pixel_da" else adaptation.to_real
    nn.init.normal_(generator.last.weight, std=0.1)
    batch = brighter()
    draws = adaptation.draw(torch.Generator().manual_seed(0), tuple(batch.real.shape))
    made = generator(batch.synthetic, None if draws is None else draws.noise)
    of_made = charbonnier(adaptation.restorer(made), batch.clean)
    weights = list(generator.parameters())
    expected = torch.autograd.grad(of_made, weights)
    assert all(gradient.abs().max() > 1e-5 for gradient in expected)
    adaptation(batch, draws, HALFWAY)["total"].backward()
    for weight, gradient in zip(weights, expected, strict=True):
        torch.testing.assert_close(weight.grad, share * gradient)


@pytest.mark.parametrize("span", [1.0, 2.0])
def test_the_total_of_cycada_by_hand(span: float) -> None:
    """With two generators that change something, each otherwise."""
    weights = {"adversarial_weight": 3.0, "cycle_weight": 5.0, "identity_weight": 7.0}
    adaptation = build_method(TwoLayers(), replace(BASELINES["cycada"], **weights)).eval()
    to_real, to_synthetic = adaptation.to_real, adaptation.to_synthetic
    for generator in (to_real, to_synthetic):
        nn.init.normal_(generator.last.weight, std=0.1)
    batch = replace(brighter(), span=span)
    synthetic, real = batch.synthetic, batch.real
    made_real, made_synthetic = to_real(synthetic), to_synthetic(real)

    def apart(found: Tensor, expected: Tensor) -> Tensor:
        return (found - expected).abs().mean() / span

    cycle = apart(to_synthetic(made_real), synthetic) + apart(to_real(made_synthetic), real)
    identity = apart(to_real(real), real) + apart(to_synthetic(synthetic), synthetic)
    of_real, of_synthetic = adaptation.real_discriminator, adaptation.synthetic_discriminator
    domain = domain_loss(of_real(real), of_real(made_real))
    domain = domain + domain_loss(of_synthetic(synthetic), of_synthetic(made_synthetic))
    deception = fooled(of_real(made_real)) + fooled(of_synthetic(made_synthetic))
    restored = [adaptation.restorer(images) for images in (synthetic, made_real)]
    restoration, of_made = (charbonnier(images, batch.clean) for images in restored)
    codes = [adaptation.bottleneck.read(adaptation.restorer, x)[1] for x in (made_real, real)]
    features = domain_loss(*(adaptation.classifier(code) for code in codes))

    terms = adaptation(batch, None, HALFWAY)
    expected = {
        "restoration": restoration,
        "restoration_made": of_made,
        "domain": domain / 2,
        "feature_domain": features,
        "deception": deception / 2,
        "cycle": cycle,
        "identity": identity,
        "total": (restoration + of_made) / (2 * span)
        + domain
        + features
        + 3 * deception
        + 5 * cycle
        + 7 * identity,
    }
    torch.testing.assert_close(terms, expected)
    assert len({round(value.item(), 4) for value in expected.values()}) == len(expected)


def test_cycada_finds_both_ways_and_the_cycle_closes() -> None:
    method = replace(BASELINES["cycada"], channels=16)
    adaptation, _ = learn(method, 400)
    batch = brighter()
    made_real, made_synthetic = (
        adaptation.to_real(batch.synthetic),
        adaptation.to_synthetic(batch.real),
    )
    assert (made_real - batch.synthetic).mean().item() == pytest.approx(SHIFT, abs=0.1)
    assert (made_synthetic - batch.real).mean().item() == pytest.approx(-SHIFT, abs=0.1)
    assert F.l1_loss(adaptation.to_synthetic(made_real), batch.synthetic) < SHIFT / 4
    assert F.l1_loss(adaptation.to_real(made_synthetic), batch.real) < SHIFT / 4


@pytest.mark.parametrize("name", ["pixel_da", "cycada"])
def test_each_network_receives_the_gradient_of_its_own_aim(name: str) -> None:
    """The restorer is not moved by the discriminators, nor these by the wish to fool them."""
    base = replace(BASELINES[name], adversarial_weight=0.0)
    gradients = []
    for weight in (0.0, 7.0):
        torch.manual_seed(1)
        method = replace(base, adversarial_weight=weight)
        adaptation = build_method(TwoLayers(), method).eval()
        batch = brighter()
        draws = adaptation.draw(torch.Generator().manual_seed(0), tuple(batch.real.shape))
        adaptation(batch, draws, HALFWAY)["total"].backward()
        gradients.append({key: value.grad for key, value in adaptation.named_parameters()})
    for key, gradient in gradients[0].items():
        moved = not torch.equal(gradient, gradients[1][key])
        generates = key.startswith(("generator.last", "to_real.last", "to_synthetic.last"))
        assert moved == generates, key


# Neighbor2Neighbor and the bound


def test_neighbours_touch_and_are_never_the_same() -> None:
    height, width = 8, 12
    places = torch.arange(height * width).view(1, 1, height, width).float()
    choice = torch.randint(len(NEIGHBOURS), (1, height // 2, width // 2))
    first, second = (part[0, 0].long() for part in neighbours(places, choice))
    rows, columns = (first // width - second // width).abs(), (first - second).abs() % width
    assert ((rows + columns) == 1).all() or set((first - second).abs().unique().tolist()) <= {
        1,
        width,
    }
    assert (first != second).all()
    cells = torch.arange(height // 2)[:, None] * 1000 + torch.arange(width // 2)
    for part in (first, second):
        assert torch.equal(part // width // 2 * 1000 + part % width // 2, cells), "each of its cell"


def test_neighbor2neighbor_loss_by_hand() -> None:
    """A restorer that adds nothing: both differences are g1 - g2, so the regularization is 0."""
    batch = brighter()
    adaptation = build_method(nn.Identity(), BASELINES["neighbor2neighbor"])
    draws = adaptation.draw(torch.Generator().manual_seed(0), tuple(batch.real.shape))
    terms = adaptation(batch, draws, HALFWAY)
    first, second = neighbours(batch.real, draws.choice)
    torch.testing.assert_close(terms["reconstruction"], F.mse_loss(first, second))
    assert terms["regularization"].item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("weight", [0.0, 2.0])
def test_the_regularization_of_neighbor2neighbor_by_hand(weight: float) -> None:
    """F(x) = w x + v x(one to the right): loss and gradient, equations 9, 10; F(x) is fixed."""

    class Mix(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.share = nn.Parameter(torch.tensor([0.7, 0.2]))

        def forward(self, images: Tensor) -> Tensor:
            return self.share[0] * images + self.share[1] * images.roll(1, 3)

    method = replace(BASELINES["neighbor2neighbor"], weight=weight)
    adaptation = build_method(Mix(), method)
    batch = brighter()
    draws = adaptation.draw(torch.Generator().manual_seed(0), tuple(batch.real.shape))
    terms = adaptation(batch, draws, HALFWAY)
    terms["total"].backward()

    first, second = (part.double() for part in neighbours(batch.real, draws.choice))
    whole = 0.7 * batch.real.double() + 0.2 * batch.real.double().roll(1, 3)
    whole_first, whole_second = neighbours(whole, draws.choice)
    moved = first.roll(1, 3)
    d = 0.7 * first + 0.2 * moved - second
    e = d - (whole_first - whole_second)
    expected = (d**2).mean() + 0.5 * weight * (e**2).mean()
    assert terms["regularization"].item() == pytest.approx((e**2).mean().item(), rel=1e-4)
    assert terms["regularization"].item() > 1e-3
    assert terms["total"].item() == pytest.approx(expected.item(), rel=1e-4)
    # d total / d w: F(x) takes no part, or (x first - x second) would be subtracted from its factor
    slope = [2 * ((d + 0.5 * weight * e) * seen).mean().item() for seen in (first, moved)]
    assert adaptation.restorer.share.grad.tolist() == pytest.approx(slope, rel=1e-3)


@pytest.mark.parametrize("name", ["neighbor2neighbor", "ap_bsn", "target_supervised"])
def test_what_is_only_looked_at_costs_no_pass(name: str) -> None:
    """L_res on synthetic pairs takes part in no loss: it is there where a row of the log ends."""
    passes = []
    adaptation = build_method(TwoLayers(), BASELINES[name])
    adaptation.restorer.register_forward_hook(lambda *given: passes.append(1))
    batch = brighter()
    draws = adaptation.draw(torch.Generator().manual_seed(0), tuple(batch.real.shape))
    shown = adaptation(batch, draws, HALFWAY)
    with_log = len(passes)
    silent = adaptation(batch, draws, replace(HALFWAY, logged=False))
    assert len(passes) == 2 * with_log - 1
    assert shown.keys() - silent.keys() == {"restoration"}
    assert torch.equal(shown["total"], silent["total"])


def test_downsampling_parts_neighbours() -> None:
    places = torch.arange(2 * 8 * 12).view(2, 1, 8, 12)
    parts = downsample(places, 4)
    assert parts.shape == (2 * 16, 1, 2, 3)
    for number in range(32):
        image, row, column = number // 16, number % 16 // 4, number % 4
        assert torch.equal(parts[number, 0], places[image, 0, row::4, column::4])


def test_a_hidden_pixel_shows_a_neighbour() -> None:
    images = torch.arange(25.0).view(1, 1, 5, 5).expand(1, 3, 5, 5)
    masked = torch.zeros(1, 1, 5, 5, dtype=torch.bool)
    masked[..., 2, 2] = True
    seen = set()
    for number in range(len(AROUND)):
        shown = hide(images, masked, torch.full((1, 1, 5, 5), number))
        assert torch.equal(torch.where(masked, images, shown), images), "the others stay"
        seen.add(int(shown[0, 0, 2, 2]))
    assert seen == {6, 7, 8, 11, 13, 16, 17, 18}


@pytest.mark.parametrize("name", ["neighbor2neighbor", "ap_bsn"])
def test_noise_is_removed_without_a_clean_image(name: str) -> None:
    def noisy() -> Batch:
        flat = torch.rand(8, 3, 1, 1).expand(-1, -1, SIZE, SIZE)
        images = flat + 0.1 * torch.randn(8, 3, SIZE, SIZE)
        return Batch(images, flat, images)

    adaptation, _ = learn(BASELINES[name], 400, noisy, 1e-2)
    batch = noisy()
    left = F.mse_loss(adaptation.restorer(batch.real), batch.clean)
    assert left < 0.5 * F.mse_loss(batch.real, batch.clean)


def test_a_stride_parts_noise_that_hangs_together() -> None:
    """Beside a blind spot lies the same noise, and it is learnt as if it were content."""

    def hanging_together() -> Batch:
        flat = torch.rand(8, 3, 1, 1).expand(-1, -1, 2 * SIZE, 2 * SIZE)
        noise = 3 * F.avg_pool2d(torch.randn(8, 3, 2 * SIZE + 2, 2 * SIZE + 2), 3, stride=1)
        images = flat + 0.1 * noise
        return Batch(images, flat, images)

    left = {}
    for stride in (1, 4):
        torch.manual_seed(0)
        adaptation, _ = learn(
            replace(BASELINES["ap_bsn"], stride=stride), 250, hanging_together, 1e-2
        )
        batch = hanging_together()
        error = F.mse_loss(adaptation.restorer(batch.real), batch.clean)
        left[stride] = (error / F.mse_loss(batch.real, batch.clean)).item()
    assert left[1] > 0.75, "of the noise"
    assert left[4] < 0.65


def test_the_bound_learns_from_the_truth_alone() -> None:
    batch = brighter()
    adaptation = build_method(TwoLayers(), BASELINES["target_supervised"])
    terms = adaptation(batch, None, HALFWAY)
    expected = charbonnier(adaptation.restorer(batch.real), batch.truth)
    torch.testing.assert_close(terms["total"], expected)
    assert not terms["restoration"].requires_grad
    _, log = learn(BASELINES["target_supervised"], 200)
    assert last(log, "real_restoration") < 0.02 < log[0]["real_restoration"]
