"""The authors' numbers on this card: loss, gradients, restorer and denoiser in every precision."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.gpu.setup import Findings, Row, Setup
from benchmarks.steps import AT_FULL_WEIGHT, SIZES
from pipeline.config.denoiser import DenoiserSettings
from pipeline.datasets.batches import Batch
from pipeline.device import Precision, autocast, prepare_torch, use_precision
from pipeline.methods.noise_space import NoiseSpace, NoiseSpaceDraws
from pipeline.models.denoiser.network import Denoiser
from pipeline.models.restorers.unet import UNet

FOLDER = Path(__file__).parents[2] / "tests" / "golden"
TOLERANCES: dict[Precision, float] = {"fp32": 1e-4, "tf32": 1e-2, "bf16": 1e-1}
"""Of |found - expected| / |expected|. A product of 8 or 10 bits of mantissa errs by 4e-3 or 1e-3,
and a gradient goes through some fifty of them."""


def measure(setup: Setup, before: Findings) -> Iterator[Row]:
    """Yield for each precision and quantity the relative error and whether it is small enough."""
    prepare_torch(torch.get_num_threads())
    for precision, what in itertools.product(TOLERANCES, QUANTITIES):
        yield from compare(torch.device(setup.device), precision, what)


def compare(device: torch.device, precision: Precision, what: str) -> Iterator[Row]:
    """Yield the relative errors of one kind of quantity in one precision."""
    use_precision(precision)
    allowed = TOLERANCES[precision]
    for name, (found, expected) in QUANTITIES[what](device, precision).items():
        error = float((found.cpu().double() - expected).norm() / expected.norm())
        yield {
            "precision": precision, "quantity": f"{what}: {name}", "error": error,
            "allowed": allowed, "failed": not error <= allowed,
        }  # fmt: skip


Pairs = dict[str, tuple[Tensor, Tensor]]


def _read(name: str) -> dict[str, Tensor]:
    with np.load(FOLDER / f"{name}.npz") as file:
        return {key: torch.from_numpy(np.asarray(file[key])) for key in file.files}


class _Linear(nn.Module):
    """The golden loss's networks: W over channels, plus b (restorer) or c times the level."""

    def __init__(self, weight: Tensor, offset: Tensor, residual: bool) -> None:
        super().__init__()
        self.weight, self.offset = nn.Parameter(weight.float()), nn.Parameter(offset.float())
        self.residual = residual

    def forward(self, *given: Tensor) -> Tensor:
        if self.residual:
            return given[0] + self._mixed(given[0]) + self.offset.view(1, -1, 1, 1)
        level = given[2].view(-1, 1, 1, 1)
        return self._mixed(torch.cat(given[:2], dim=1)) + self.offset.view(1, -1, 1, 1) * level

    def _mixed(self, images: Tensor) -> Tensor:
        return torch.einsum("oc,bchw->bohw", self.weight, images)


def _loss(device: torch.device, precision: Precision) -> Pairs:
    golden = _read("noise_da_loss")
    restorer = _Linear(golden["restorer_W"], golden["restorer_b"], residual=True)
    method = NoiseSpace(restorer, SIZES["tiny"].method)
    method.denoiser = _Linear(golden["denoiser_W"], golden["denoiser_c"], residual=False)
    method.levels = golden["gammas"].float()
    method.to(device)
    draws = NoiseSpaceDraws(
        noise=golden["noise"].float(),
        diffusion_step=golden["t"],
        fraction=golden["u"].flatten().float(),
        shuffled=golden["swap_draw"] > 0.5,
        shuffled_negative=golden["negative_swap_draw"] > 0.5,
    )
    images = [golden[name].float() for name in ("synthetic", "clean", "real")]
    with autocast(device, precision):
        batch = Batch(*images).to(device, (0, 1))
        terms = method(batch, draws.to(device), AT_FULL_WEIGHT)
    (terms["restoration"] + 0.2 * terms["diffusion"]).backward()
    gradient = restorer.weight.grad
    assert gradient is not None
    return {
        "diffusion": (terms["diffusion"].detach(), golden["loss_noise_1"]),
        "restoration": (terms["restoration"].detach(), golden["loss_syn_1"]),
        "gradient of the restorer": (gradient, golden["grad_restorer_W_1"]),
    }


def _restorer(device: torch.device, precision: Precision) -> Pairs:
    golden = _read("restorer_unet")
    prefix = "state/RestorationNet."
    network = UNet(levels=4, channels=8)
    network.load_state_dict(
        {k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)}
    )
    network.to(device).to(memory_format=torch.channels_last)
    with torch.no_grad(), autocast(device, precision):
        restored = network(golden["input"].to(device))
    # the residual: what the network itself says
    return {
        "residual": (restored - golden["input"].to(device), golden["restored"] - golden["input"])
    }


def _denoiser(device: torch.device, precision: Precision) -> Pairs:
    golden = _read("denoiser_small")
    network = Denoiser(DenoiserSettings((32, 64), 2, 1, 32, 32, 0.0), conditions=2)
    network.load_state_dict(_weights(network, int(golden["seed"])))
    network.to(device).to(memory_format=torch.channels_last)
    given = golden["input"].to(device).requires_grad_()
    with autocast(device, precision):
        predicted = network(given[:, :3], given[:, 3:], golden["level"].to(device))
    loss = F.mse_loss(predicted.float(), golden["noise"].to(device))
    loss.backward()  # type: ignore[no-untyped-call]
    assert given.grad is not None
    return {
        "prediction": (predicted.detach(), golden["predicted"]),
        "gradient of the input": (given.grad, golden["input_gradient"]),
    }


QUANTITIES: dict[str, Callable[[torch.device, Precision], Pairs]] = {
    "loss": _loss, "restorer": _restorer, "denoiser": _denoiser,
}  # fmt: skip


def _weights(network: nn.Module, seed: int) -> dict[str, Tensor]:
    """Return the golden file's weights, a formula of place and name; see its test."""
    weights = {}
    for i, (name, parameter) in enumerate(sorted(network.named_parameters())):
        j = torch.arange(1, parameter.numel() + 1, dtype=torch.float64)
        s = torch.sin(0.37 * j + 1.7 * i + seed).view(parameter.shape)
        if parameter.ndim > 1:
            value = s * (2 / parameter[0].numel()) ** 0.5
        elif "norm" in name and name.endswith("weight"):
            value = 1 + 0.1 * s
        else:
            value = 0.05 * s
        weights[name] = value.float()
    return weights
