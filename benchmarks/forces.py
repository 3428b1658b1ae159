"""How hard each loss of the feature-space methods pulls at the restorer where adaptation begins.

    OMP_NUM_THREADS=1 python -m benchmarks.forces [--task TASK] [--seed SEED] [OVERRIDE ...]

After ``dvc repro pretrain``; overrides are those of that run. Prints for each loss the L2 norm of
its gradient by the weights of the encoder (what lies before the aligned features), mean over
batches, with every weight 1 and the reversal at its full strength; new networks are as initialized.
"""

import argparse
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from pipeline.config.compose import compose
from pipeline.config.methods import CyCadaSettings, DannSettings, DsnSettings
from pipeline.config.params import Params
from pipeline.config.read import read_params
from pipeline.datasets.batches import Batch, JointCrops, Share, batches
from pipeline.images.store import ImageStore
from pipeline.methods.bottleneck import Bottleneck
from pipeline.methods.method import Progress, build_method
from pipeline.models.build import build_restorer
from pipeline.models.weights import load_strictly, load_tensors
from pipeline.randomness import seeded_torch, torch_generator
from pipeline.runtime.paths import STATE_FILE, pretrained, task_images

AT_FULL_STRENGTH = Progress(step=1, epoch=1, fraction=1.0)
BATCHES = 8
PREFIX = "networks.restorer."

Forces = dict[str, dict[str, float]]
"""By method and loss."""


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forces")
    parser.add_argument("--task", default="denoise")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("overrides", nargs="*", metavar="OVERRIDE")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        compose([*given.overrides, "methods=[dann,dsn,cycada]"], path)
        params = read_params(path)
    state = pretrained(given.task, given.seed) / STATE_FILE
    table = Table("method", "loss", "norm of its gradient")
    for method, forces in measure(params, given.task, given.seed, state).items():
        for loss, norm in forces.items():
            table.add_row(method, loss, f"{norm:.3g}")
    Console(width=100).print(table)


def measure(params: Params, task: str, seed: int, state: Path) -> Forces:
    """Return the mean norms of each method of the run that aligns features.

    Args:
        params: the run's.
        task: its name; its images are read where ``dvc repro`` leaves them.
        seed: of crops and networks.
        state: what the pretraining left.
    """
    settings, images = params.tasks[task], task_images(task)
    synthetic, real = (ImageStore(images / f"{domain}.h5") for domain in ("synthetic", "real"))
    crops = JointCrops(synthetic, real, settings.synthetic, params.train.patch, seed)
    weights, facts = load_tensors(state)
    first = int(facts["step"])
    found: Forces = {}
    for name, method in params.methods.items():
        if not isinstance(method, DannSettings | DsnSettings | CyCadaSettings):
            continue
        with seeded_torch(seed, "restorer weights"):
            restorer = build_restorer(settings.restorer or params.restorer)
        values = {k.removeprefix(PREFIX): v for k, v in weights.items() if k.startswith(PREFIX)}
        load_strictly(restorer, values, state)
        with seeded_torch(seed, "other weights"):
            adaptation = build_method(restorer, _of_weight_one(method))
        rows = [
            _norms(adaptation, batch.to(torch.device("cpu"), settings.image_range))
            for batch in batches(crops, Share(params.train), first, first + BATCHES)
        ]
        found[name] = {loss: statistics.mean(row[loss] for row in rows) for loss in rows[0]}
    return found


def _of_weight_one(
    method: DannSettings | DsnSettings | CyCadaSettings,
) -> DannSettings | DsnSettings | CyCadaSettings:
    """Return the method with its reversal at weight 1; the other losses are told unweighted."""
    if isinstance(method, DannSettings):
        return replace(method, weight=1.0)
    if isinstance(method, DsnSettings):
        return replace(method, similarity_weight=1.0)
    return replace(method, feature_weight=1.0)


def _norms(adaptation: Any, batch: Batch) -> dict[str, float]:
    encoder = _encoder(adaptation.restorer, batch.synthetic)
    draws = adaptation.draw(torch_generator(0, "draws", 0), tuple(batch.real.shape))
    terms: dict[str, Tensor] = adaptation(batch, draws, AT_FULL_STRENGTH)
    found = {}
    for name, term in terms.items():
        gradients = torch.autograd.grad(term, encoder, retain_graph=True, allow_unused=True)
        squares = [gradient.square().sum() for gradient in gradients if gradient is not None]
        if squares and name != "total":
            found[name] = torch.stack(squares).sum().sqrt().item()
    return found


def _encoder(restorer: nn.Module, images: Tensor) -> list[Tensor]:
    """Return the weights on which the aligned features depend."""
    weights = list(restorer.parameters())
    features = Bottleneck(restorer).features(restorer, images)
    gradients = torch.autograd.grad(features.sum(), weights, allow_unused=True)
    return [w for w, gradient in zip(weights, gradients, strict=True) if gradient is not None]


if __name__ == "__main__":
    main()
