"""Megapixels a second and peak memory of restoring large photographs.

    python -m benchmarks.restore_large [--megapixels 24 100] [--bits 8] [--format png]
        [--model FILE] [--tile 512] [--overlap 64] [--threads 2] [--json FILE]

Restores a photograph of noise over a gradient (which PNG compresses as badly as a real one), each
size in a process of its own, so that its peak memory (VmHWM) is its own. Without --model the
network is untrained: of the demo's size, which costs the same. Decoding and writing are included.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from pipeline.inference.photographs.reading import Form, Values
from pipeline.inference.photographs.writing import write_picture

DEMO = {"kind": "unet", "levels": 3, "channels": 24}


def main() -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.restore_large")
    parser.add_argument("--megapixels", type=float, nargs="+", default=[24, 100])
    parser.add_argument("--bits", type=int, choices=(8, 16), default=8)
    parser.add_argument("--format", choices=("png", "tiff", "jpeg"), default="png")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--overlap", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path, help="where to write every number")
    arguments = parser.parse_args()
    rows = [measure(megapixels, arguments) for megapixels in arguments.megapixels]
    table = Table("megapixels", "seconds", "megapixels/s", "peak memory", "bytes a pixel")
    for row in rows:
        table.add_row(
            f"{row['megapixels']:.1f}",
            f"{row['seconds']:.1f}",
            f"{row['megapixels'] / row['seconds']:.2f}",
            f"{row['peak_mib']:.0f} MiB",
            f"{row['peak_mib'] * 2**20 / row['megapixels'] / 1e6:.1f}",
        )
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


def measure(megapixels: float, arguments: argparse.Namespace) -> dict[str, float]:
    """Return size, seconds and peak memory of restoring one photograph."""
    height = round((megapixels * 1e6 * 2 / 3) ** 0.5)
    width = height * 3 // 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "large.png"
        write_photograph(source, height, width, arguments.bits)
        model = arguments.model or untrained(folder / "model.safetensors")
        options = {
            "--model": model,
            "--out": folder / "out",
            "--format": arguments.format,
            "--tile": arguments.tile,
            "--overlap": arguments.overlap,
            "--threads": arguments.threads,
        }
        words = [str(word) for option in options.items() for word in option]
        command = [sys.executable, "-m", "benchmarks.restore_large_part", str(source), *words]
        begun = time.perf_counter()
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        seconds = time.perf_counter() - begun
    peak_kib = int(output.splitlines()[-1])
    return {"megapixels": height * width / 1e6, "seconds": seconds, "peak_mib": peak_kib / 1024}


def write_photograph(path: Path, height: int, width: int, bits: int) -> None:
    """Write noise over a gradient, without ever holding the whole."""
    kind: Any = np.uint8 if bits == 8 else np.uint16
    top_value = 2**bits - 1
    generator = np.random.default_rng(0)

    def rows() -> Iterator[Values]:
        for top in range(0, height, 64):
            shape = (min(64, height - top), width, 3)
            gradient = np.linspace(0.2, 0.8, width, dtype=np.float32)[None, :, None]
            noise = generator.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
            yield (np.clip(gradient + noise, 0, 1) * top_value).astype(kind)

    write_picture(path, "png", Form(height, width, 3, bits), rows())


def untrained(path: Path) -> Path:
    """Write a model of the demo's size with random weights."""
    import torch

    from pipeline.config.build import build
    from pipeline.config.restorers import RestorerSettings
    from pipeline.models.build import build_restorer
    from pipeline.models.weights import save_tensors

    torch.manual_seed(0)
    network = build_restorer(build(RestorerSettings, DEMO, "restorer"))
    save_tensors(path, network.state_dict(), {"restorer": DEMO, "image_range": [0.0, 1.0]})
    return path


if __name__ == "__main__":
    main()
