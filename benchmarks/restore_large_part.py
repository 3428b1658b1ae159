"""Part of ``benchmarks.restore_large``: one way to restore, then this process's peak memory."""

import sys
from pathlib import Path

from pipeline.commands import restore


def by_loop(words: list[str]) -> int:
    """Restore as a plain loop does: all at once, without tiles, in 8 bits."""
    import numpy as np
    import torch
    from PIL import Image

    from pipeline.inference.model import load_network

    Image.MAX_IMAGE_PIXELS = None
    options = dict(zip(words[1::2], words[2::2], strict=True))
    torch.set_num_threads(int(options["--threads"]))
    network, _ = load_network(Path(options["--model"]))
    values = np.asarray(Image.open(words[0]).convert("RGB"), np.float32) / 255
    height, width = (side - side % network.factor for side in values.shape[:2])
    given = torch.from_numpy(values[:height, :width].transpose(2, 0, 1).copy())[None]
    with torch.inference_mode():
        restored = network(given)[0].clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
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
    status = WAYS[sys.argv[1]](sys.argv[2:])
    (peak,) = (
        line.split()[1]
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    )
    print(peak)
    sys.exit(status)
