"""Restoring with the paper's restorer: megapixels a second, in tiles and in batches."""

from collections.abc import Iterator

import numpy as np
import torch

from benchmarks.gpu.setup import Findings, Row, Setup
from benchmarks.gpu.updates import seconds_of
from benchmarks.steps import SIZES
from pipeline.config.running import Evaluate
from pipeline.device import prepare_torch
from pipeline.inference.model import InRange, Model
from pipeline.models.build import build_restorer

PHOTOGRAPH = {"paper": (4000, 6000), "tiny": (40, 60)}
"""Height and width; 24 megapixels as cameras have them."""
BLOCKS = {"paper": (16, 256), "tiny": (2, 32)}
"""How many at once, and their side: SIDD's test blocks in the batches of the preset."""
TILE = {"paper": 1024, "tiny": 32}


def measure(setup: Setup, before: Findings) -> Iterator[Row]:
    """Yield rates in each precision; reading, writing and scoring are not part of it."""
    prepare_torch(torch.get_num_threads())
    device, size = torch.device(setup.device), SIZES[setup.size]
    generator = np.random.default_rng(0)
    torch.manual_seed(0)
    restorer = build_restorer(size.restorer)
    restorer.factor = 2 ** (size.restorer.levels - 1)
    network = InRange(restorer.requires_grad_(False), (0.0, 1.0)).eval().to(device)
    network.to(memory_format=torch.channels_last)
    height, width = PHOTOGRAPH[setup.size]
    photograph = generator.random((height, width, 3), dtype=np.float32)
    count, side = BLOCKS[setup.size]
    blocks = list(generator.random((count, side, side, 3), dtype=np.float32))
    for precision in ("fp32", "bf16"):
        tile = TILE[setup.size]
        settings = Evaluate(precision, 1, count, 0, None, tile, tile // 16, kept_images=0)
        model = Model(network, settings)
        seconds = seconds_of(lambda model=model: model(photograph), device)  # type: ignore[misc]
        yield {"restored": f"a photograph in tiles of {tile}, {precision}",
               "megapixels/s": height * width / seconds / 1e6}  # fmt: skip
        seconds = seconds_of(lambda model=model: model.restore_equal(blocks), device)  # type: ignore[misc]
        yield {"restored": f"{count} blocks of {side} at once, {precision}",
               "megapixels/s": count * side**2 / seconds / 1e6}  # fmt: skip
