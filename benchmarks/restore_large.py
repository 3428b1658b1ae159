"""Megapixels a second and peak memory of restoring large photographs.

    python -m benchmarks.restore_large [--megapixels 12 24 100] [--kinds jpeg png png16 tiff]
        [--threads 1 2] [--ways restore loop nothing] [--network small | demo | FILE]
        [--tile 512] [--overlap 64] [--json FILE]

Restores a photograph of noise over a gradient (which PNG compresses as badly as a real one) into
the format that it has, each in a process of its own, so that its peak memory (VmHWM) is its own.
Decoding and writing are included, the start of Python and PyTorch is not. The kinds jpeg and png
have 8 bits, png16 and tiff 16.

Ways: restore is the command. loop does it as a plain loop would: Pillow reads, the network restores
all at once, Pillow writes (8 bits); where that does not fit into memory, the table says so. nothing
reads and writes without a network. Networks are untrained: one of the demo's costs what a trained
one does, the small one leaves reading and writing to be seen. As it is, it takes some minutes on
12 megapixels, and in proportion on more; the demo's network takes several times as long.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.restore_large_part import TOO_LARGE
from pipeline.config.like import CONF
from pipeline.config.read import read_values
from pipeline.inference.photographs.reading import Form, Values
from pipeline.inference.photographs.writing import Format, write_picture

NETWORKS = {
    "small": {"kind": "unet", "levels": 2, "channels": 4},
    "demo": read_values(CONF / "restorer" / "nafnet_small.yaml"),
}
KINDS: dict[str, tuple[Format, int]] = {
    "jpeg": ("jpeg", 8),
    "png": ("png", 8),
    "png16": ("png", 16),
    "tiff": ("tiff", 16),
}
"""Format and bits."""
WAYS = ("restore", "loop", "nothing")


def main(words: list[str] | None = None) -> None:
    """Read the command line, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.restore_large")
    parser.add_argument("--megapixels", type=float, nargs="+", default=[12])
    parser.add_argument("--kinds", choices=KINDS, nargs="+", default=list(KINDS))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--ways", choices=WAYS, nargs="+", default=["restore", "loop"])
    parser.add_argument("--network", default="small", help="small, demo or a model.safetensors")
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--overlap", type=int, default=64)
    parser.add_argument("--json", type=Path, help="where to write every number")
    arguments = parser.parse_args(words)
    tiles = arguments.tile, arguments.overlap
    rows = []
    for megapixels in arguments.megapixels:
        for kind in arguments.kinds:
            for threads in arguments.threads:
                for way in arguments.ways:
                    row = measure(megapixels, kind, threads, way, arguments.network, *tiles)
                    rows.append(row)
                    print(*row.values(), file=sys.stderr)
    Console().print(_table(rows))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


def _table(rows: list[dict[str, Any]]) -> Table:
    table = Table("megapixels", "kind", "threads", "way", "seconds", "megapixels/s",
                  "peak memory", "bytes a pixel")  # fmt: skip
    for row in rows:
        said = [f"{row['megapixels']:.1f}", row["kind"], str(row["threads"]), row["way"]]
        if row["seconds"] is None:
            table.add_row(*said, "does not fit into memory")
            continue
        table.add_row(
            *said,
            f"{row['seconds']:.1f}",
            f"{row['megapixels'] / row['seconds']:.2f}",
            f"{row['peak_mib']:.0f} MiB",
            f"{row['peak_mib'] * 2**20 / row['megapixels'] / 1e6:.1f}",
        )
    return table


def measure(
    megapixels: float,
    kind: str,
    threads: int,
    way: str = "restore",
    network: str = "small",
    tile: int = 512,
    overlap: int = 64,
) -> dict[str, Any]:
    """Return size, seconds and peak memory (MiB) of restoring one photograph.

    Seconds and memory are None where a plain loop does not fit into memory.

    Args:
        megapixels: of the photograph, 3 wide and 2 high.
        kind: one of KINDS.
        threads: of the processor.
        way: one of WAYS.
        network: one of NETWORKS, or the path of a model.
        tile: side in pixels.
        overlap: of tiles, in pixels.

    Raises:
        CalledProcessError: it could not be restored.
    """
    height = round((megapixels * 1e6 * 2 / 3) ** 0.5)
    width = height * 3 // 2
    row = {"megapixels": height * width / 1e6, "kind": kind, "threads": threads, "way": way}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        written, bits = KINDS[kind]
        source = folder / f"large.{written}"
        write_photograph(source, written, height, width, bits)
        model = network
        if network in NETWORKS:
            model = str(untrained(folder / "model.safetensors", NETWORKS[network]))
        options = {"--model": model, "--out": folder / "out", "--format": written, "--tile": tile,
                   "--overlap": overlap, "--threads": threads}  # fmt: skip
        words = [str(word) for option in options.items() for word in option]
        command = [sys.executable, "-m", "benchmarks.restore_large_part", way, str(source), *words]
        done = subprocess.run(command, capture_output=True, text=True)
    if way == "loop" and done.returncode == TOO_LARGE:
        return {**row, "seconds": None, "peak_mib": None}
    if done.returncode:
        sys.stderr.write(done.stderr)
    done.check_returncode()
    seconds, peak_kib = map(float, done.stdout.splitlines()[-1].split())
    return {**row, "seconds": seconds, "peak_mib": peak_kib / 1024}


def write_photograph(path: Path, kind: Format, height: int, width: int, bits: int) -> None:
    """Write noise over a gradient, without ever holding the whole."""
    values: Any = np.uint8 if bits == 8 else np.uint16
    top_value = 2**bits - 1
    generator = np.random.default_rng(0)

    def rows() -> Iterator[Values]:
        for top in range(0, height, 64):
            shape = (min(64, height - top), width, 3)
            gradient = np.linspace(0.2, 0.8, width, dtype=np.float32)[None, :, None]
            noise = generator.standard_normal(shape, dtype=np.float32) * np.float32(0.02)
            yield (np.clip(gradient + noise, 0, 1) * top_value).astype(values)

    write_picture(path, kind, Form(height, width, 3, bits), rows())


def untrained(path: Path, settings: dict[str, Any]) -> Path:
    """Write a model of these settings with random weights."""
    import torch

    from pipeline.config.build import build
    from pipeline.config.restorers import RestorerSettings
    from pipeline.models.build import build_restorer
    from pipeline.models.weights import save_tensors

    torch.manual_seed(0)
    network = build_restorer(build(RestorerSettings, settings, "restorer"))
    save_tensors(path, network.state_dict(), {"restorer": settings, "image_range": [0.0, 1.0]})
    return path


if __name__ == "__main__":
    main()
