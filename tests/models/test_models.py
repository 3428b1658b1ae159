"""Networks against the authors' released U-Net and against known sizes."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.baseline import plain_denoiser
from pipeline.config.denoiser import DenoiserSettings
from pipeline.config.restorers import UNetSettings
from pipeline.models.build import build_restorer, parameter_count
from pipeline.models.denoiser.network import Denoiser
from pipeline.models.denoiser.normalized_convolution import (
    Resampling,
    normalized_convolution,
    resample,
)
from pipeline.models.denoiser.residual_block import draw_kept
from pipeline.models.restorers.unet import UNet
from pipeline.models.weights import load_strictly, load_tensors, save_tensors
from pipeline.runtime.errors import UserError

GOLDEN = Path(__file__).parents[1] / "golden" / "restorer_unet.npz"
RELEASED_PREFIX = "state/RestorationNet."
GOLDEN_DENOISER = GOLDEN.with_name("denoiser_small.npz")


def test_unet_equals_the_released_one() -> None:
    with np.load(GOLDEN) as file:
        weights = {
            name.removeprefix(RELEASED_PREFIX): torch.from_numpy(file[name])
            for name in file.files
            if name.startswith("state/")
        }
        degraded, expected = torch.from_numpy(file["input"]), torch.from_numpy(file["restored"])
    network = UNet(levels=4, channels=8)
    network.load_state_dict(weights)
    with torch.no_grad():
        torch.testing.assert_close(network(degraded), expected, rtol=0, atol=1e-5)


def test_paper_restorer_has_the_published_size() -> None:
    restorer = build_restorer(UNetSettings(kind="unet", levels=4, channels=64))
    assert parameter_count(restorer) == 8_559_171


def test_paper_restorer_has_the_published_cost() -> None:
    macs = 0

    def count(layer: torch.nn.Conv2d, _: object, output: torch.Tensor) -> None:
        nonlocal macs
        kernel = layer.in_channels * layer.kernel_size[0] * layer.kernel_size[1]
        macs += output.numel() * kernel

    restorer = build_restorer(UNetSettings(kind="unet", levels=4, channels=64))
    for layer in restorer.modules():
        if isinstance(layer, torch.nn.Conv2d):
            layer.register_forward_hook(count)
    with torch.no_grad():
        restorer(torch.zeros(1, 3, 128, 128))
    assert macs / 1e9 == pytest.approx(12.44, abs=0.005)


def weights_by_formula(network: torch.nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """Return the golden file's weights, computed in float64: a formula instead of a file.

    Parameters are sorted by name and counted by i from 0, elements of one by j from 1.
    """
    weights = {}
    for i, (name, parameter) in enumerate(sorted(network.named_parameters())):
        j = torch.arange(1, parameter.numel() + 1, dtype=torch.float64)
        wave = torch.sin(0.37 * j + 1.7 * i + seed)
        if parameter.dim() > 1:
            wave *= (2 / parameter[0].numel()) ** 0.5
        elif "norm" in name and name.endswith("weight"):
            wave = 1 + 0.1 * wave
        else:
            wave *= 0.05
        weights[name] = wave.view(parameter.shape).float()
    return weights


def test_denoiser_equals_the_released_one() -> None:
    """Forward and input gradient against the authors' code, attention and its norm included."""
    with np.load(GOLDEN_DENOISER) as file:
        golden = {name: torch.from_numpy(file[name]) for name in file.files}
    settings = DenoiserSettings((32, 64), 2, 1, 32, 32, 0.0)
    denoiser = Denoiser(settings, conditions=2)
    assert parameter_count(denoiser) == 1_070_531
    denoiser.load_state_dict(weights_by_formula(denoiser, int(golden["seed"])))
    given = golden["input"].requires_grad_()
    predicted = denoiser(given[:, :3], given[:, 3:], golden["level"])
    F.mse_loss(predicted, golden["noise"]).backward()
    for found, expected in (
        (predicted, golden["predicted"]), (given.grad, golden["input_gradient"]),
    ):  # fmt: skip
        assert (found - expected).norm() < 1e-5 * expected.norm()


@pytest.mark.parametrize("pixel_unshuffle", [1, 2])
@pytest.mark.parametrize("conditions", [1, 2])
def test_denoiser_predicts_an_image_and_uses_all_it_is_given(
    pixel_unshuffle: int, conditions: int
) -> None:
    torch.manual_seed(0)
    denoiser = Denoiser(DenoiserSettings((8, 16), 1, pixel_unshuffle, 8, 4, 0.0), conditions)
    noisy, given = torch.rand(2, 3, 16, 24), torch.rand(2, 3 * conditions, 16, 24)
    level = torch.tensor([0.1, 0.9])
    with torch.no_grad():
        base = denoiser(noisy, given, level)
        assert base.shape == noisy.shape
        assert not torch.allclose(base, denoiser(noisy + 0.1, given, level))
        assert not torch.allclose(base, denoiser(noisy, given + 0.1, level))
        assert not torch.allclose(base, denoiser(noisy, given, level + 0.05))
        # an image's prediction depends on that image alone: both conditions fit in one pass
        alone = denoiser(noisy[:1], given[:1], level[:1])
        torch.testing.assert_close(base[:1], alone, rtol=1e-4, atol=1e-5)


@pytest.fixture(params=["small", "in parts", "as on a GPU"])
def treated(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How a block treats a batch."""
    block = "pipeline.models.denoiser.normalized_convolution"
    if request.param == "in parts":
        monkeypatch.setattr(f"{block}.CACHED_BYTES", 1)
    elif request.param == "as on a GPU":
        monkeypatch.setattr(f"{block}.IN_PARTS", ())


@pytest.mark.usefixtures("treated")
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_denoiser_equals_the_unmodified_diffusers_network(
    memory_format: torch.memory_format,
) -> None:
    torch.manual_seed(0)
    ours = Denoiser(DenoiserSettings((16, 32), 1, 1, 8, 8, 0.0), conditions=2)
    plain = plain_denoiser(copy.deepcopy(ours))
    assert list(ours.state_dict()) == list(plain.state_dict())
    noisy, given = torch.rand(2, 3, 32, 24), torch.rand(2, 6, 32, 24)
    predictions, gradients = [], []
    for network in (ours, plain):
        network.to(memory_format=memory_format)
        conditions = given.clone().requires_grad_()
        prediction = network(noisy, conditions, torch.tensor([0.1, 0.9]))
        (prediction - noisy).square().mean().backward()
        predictions.append(prediction)
        named = {name: value.grad for name, value in network.named_parameters()}
        gradients.append({"conditions": conditions.grad, **named})
    torch.testing.assert_close(predictions[0], predictions[1], rtol=1e-5, atol=1e-5)
    for name, expected in gradients[1].items():
        if name.endswith("to_k.bias"):  # softmax does not see it: its gradient is rounding noise
            continue
        error = (gradients[0][name] - expected).norm() / expected.norm()
        assert error < 1e-5, name


@pytest.mark.usefixtures("treated")
@pytest.mark.parametrize("resampling", [None, "halve", "double"])
@pytest.mark.parametrize("scales", [1, 2])
def test_gradients_of_normalized_convolution_are_those_of_autograd(
    scales: int, resampling: Resampling
) -> None:
    torch.manual_seed(0)
    shapes = [(2, 8, 4, 6), (scales, 8), (scales, 8)]
    features, scale, offset = (torch.randn(shape, requires_grad=True) for shape in shapes)
    norm, conv = nn.GroupNorm(2, 8), nn.Conv2d(8, 4, 3, padding=1)
    tensors = [features, scale, offset, *conv.parameters()]
    kept = torch.rand(features.shape) > 0.3
    ours = normalized_convolution(features, norm, scale, offset, conv, kept, 1 / 0.7, resampling)
    normalized = F.group_norm(features, 2, eps=1e-5) * scale[..., None, None]
    active = F.silu(normalized + offset[..., None, None]) * kept / 0.7
    expected = conv(resample(active, resampling))
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    weights = torch.randn_like(ours)
    found = torch.autograd.grad((ours * weights).sum(), tensors)
    wanted = torch.autograd.grad((expected * weights).sum(), tensors)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=2e-5)


def test_the_denoiser_is_the_papers() -> None:
    """Parameters and multiplications of the release: 62.6 M, 51.5 G at 128x128."""
    settings = DenoiserSettings((64, 128, 256, 512), 2, 1, 32, 32, 0.2)
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        denoiser = Denoiser(settings, conditions=2).eval()
        denoiser(torch.empty(1, 3, 128, 128), torch.empty(1, 6, 128, 128), torch.empty(1))
    assert parameter_count(denoiser) == 62_643_075
    assert counter.get_total_flops() / 2e9 == pytest.approx(51.49, abs=0.01)


def test_denoiser_keeps_the_precision_of_its_weights_under_autocast() -> None:
    torch.manual_seed(0)
    ours = Denoiser(DenoiserSettings((16, 32), 1, 1, 8, 8, 0.0), conditions=2)
    plain = plain_denoiser(copy.deepcopy(ours))
    noisy, given = torch.rand(2, 3, 32, 24), torch.rand(2, 6, 32, 24)
    gradients = []
    for network in (ours, plain):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            prediction = network(noisy, given, torch.tensor([0.1, 0.9]))
        (prediction - noisy).square().mean().backward()
        values = [value.grad for value in network.parameters()]
        assert all(value.dtype == torch.float32 for value in values)
        gradients.append(torch.cat([value.flatten() for value in values]))
    # each differs from the float32 gradient by as much
    assert (gradients[0] - gradients[1]).norm() < 0.05 * gradients[1].norm()


def test_dropout_keeps_the_right_share_and_repeats() -> None:
    features = torch.zeros(2, 7, 101, 103).to(memory_format=torch.channels_last)
    torch.manual_seed(0)
    kept = draw_kept(features, 0.2)
    assert kept.stride() == features.stride()
    assert kept.float().mean() == pytest.approx(0.8, abs=0.004)  # four standard deviations
    torch.manual_seed(0)
    assert torch.equal(kept, draw_kept(features, 0.2))
    assert not torch.equal(kept, draw_kept(features, 0.2))
    assert draw_kept(features, 0.0).all()


def test_the_denoiser_is_compiled_as_one_graph_and_draws_the_same() -> None:
    """``fullgraph`` refuses to leave anything to Python; dropout is part of it."""
    denoiser = Denoiser(DenoiserSettings((8, 16), 1, 1, 8, 4, 0.2), conditions=2).train()
    given = torch.rand(1, 3, 16, 16), torch.rand(1, 6, 16, 16), torch.tensor([0.5])
    gradients = []
    for network in (denoiser, torch.compile(denoiser, fullgraph=True, backend="aot_eager")):
        torch.manual_seed(0)
        denoiser.zero_grad()
        network(*given).square().mean().backward()
        gradients.append([weight.grad for weight in denoiser.parameters()])
    torch._dynamo.reset()
    for plain, compiled in zip(*gradients, strict=True):
        torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-6)


def test_denoiser_drops_while_training_only_and_repeats_from_a_seed() -> None:
    torch.manual_seed(0)
    denoiser = Denoiser(DenoiserSettings((8, 16), 1, 1, 8, 4, 0.5), conditions=2)
    given = (torch.rand(2, 3, 16, 24), torch.rand(2, 6, 16, 24), torch.tensor([0.1, 0.9]))
    runs = []
    for _ in range(2):
        torch.manual_seed(1)
        denoiser.zero_grad()
        prediction = denoiser(*given)
        prediction.square().mean().backward()
        runs.append([prediction, *(value.grad.clone() for value in denoiser.parameters())])
    assert all(map(torch.equal, *runs))
    assert not torch.equal(denoiser(*given), runs[0][0])
    denoiser.eval()
    assert torch.equal(denoiser(*given), denoiser(*given))


def test_weights_round_trip_and_have_the_same_bytes(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(6.0).view(2, 3), "a": torch.tensor(3)}
    facts = {"seed": 1, "settings": {"x": [1, 2.5, None]}, "name": "ü"}
    for name in ("one", "two"):
        save_tensors(tmp_path / name, tensors, facts)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    found, found_facts = load_tensors(tmp_path / "one")
    assert found_facts == facts
    assert all(torch.equal(found[name], tensors[name]) for name in tensors)


def test_damaged_missing_and_foreign_weights_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(UserError, match="not found"):
        load_tensors(path)
    save_tensors(path, {"a": torch.zeros(100)}, {})
    whole = path.read_bytes()
    path.write_bytes(whole[:-50])
    with pytest.raises(UserError, match="damaged"):
        load_tensors(path)
    path.write_bytes(b"PK\x03\x04 pickled")
    with pytest.raises(UserError, match="damaged"):
        load_tensors(path)
    with pytest.raises(UserError, match="another network"):
        load_strictly(UNet(2, 2), {"a": torch.zeros(1)}, path)


def test_a_full_disk_keeps_the_old_weights_and_says_what_to_do(small_disk: Path) -> None:
    path = small_disk / "model.safetensors"
    save_tensors(path, {"a": torch.zeros(10)}, {})
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"cannot be written .*free some disk space"):
        save_tensors(path, {"a": torch.zeros(10**6)}, {})
    assert [file.name for file in small_disk.iterdir()] == [path.name]
    assert path.read_bytes() == before
