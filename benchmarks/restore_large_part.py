"""Part of ``benchmarks.restore_large``: one way to restore; prints seconds and peak memory."""

import resource
import sys
import time
from pathlib import Path

import psutil

from pipeline.commands import restore

TOO_LARGE = 3
"""Status where a plain loop does not fit into memory."""


def by_loop(words: list[str]) -> int:
    """Restore as a plain loop does: all at once, without tiles, in 8 bits."""
    import numpy as np
    import torch
    from PIL import Image

    from pipeline.inference.model import load_network

    # so that it fails, where else the system would end any process
    free = psutil.virtual_memory().available
    resource.setrlimit(resource.RLIMIT_DATA, (free, free))
    Image.MAX_IMAGE_PIXELS = None
    options = dict(zip(words[1::2], words[2::2], strict=True))
    torch.set_num_threads(int(options["--threads"]))
    network, _ = load_network(Path(options["--model"]))
    values = np.asarray(Image.open(words[0]).convert("RGB"), np.float32) / 255
    height, width = (side - side % network.factor for side in values.shape[:2])
    given = torch.from_numpy(values[:height, :width].transpose(2, 0, 1).copy())[None]
    try:
        with torch.inference_mode():
            scaled = network(given)[0].clamp(0, 1).mul(255)
    except RuntimeError as error:
        if "memory" not in str(error):
            raise
        return TOO_LARGE
    restored = scaled.round().byte().permute(1, 2, 0).numpy()
    out = Path(options["--out"])
    out.mkdir()
    Image.fromarray(restored).save(out / Path(words[0]).name)
    return 0


def without_network(words: list[str]) -> int:
    """Read and write, with a network that changes nothing and costs nothing."""
    from pipeline.inference.photographs.listing import Order
    from pipeline.inference.photographs.restore import Handling, restore_photograph

    options = dict(zip(words[1::2], words[2::2], strict=True))
    tile = int(options["--tile"])
    order = Order(Path(words[0]), Path(options["--out"]) / Path(words[0]).name, options["--format"])  # type: ignore[arg-type]
    restore_photograph(
        order,
        lambda read, size: (
            read(slice(top, min(top + tile, size[0]))) for top in range(0, size[0], tile)
        ),
        Handling(10**9),
    )
    return 0


WAYS = {"restore": restore.main, "loop": by_loop, "nothing": without_network}

if __name__ == "__main__":
    if sys.argv[1] != "nothing":
        from pipeline.device import prepare_torch

        prepare_torch(1)  # its start is not measured; each way sets its own threads
    begun = time.perf_counter()
    status = WAYS[sys.argv[1]](sys.argv[2:])
    seconds = time.perf_counter() - begun
    (peak,) = (
        line.split()[1]
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    )
    print(seconds, peak)
    sys.exit(status)
