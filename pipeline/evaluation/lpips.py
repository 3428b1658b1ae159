"""LPIPS, a distance of images that follows what people see; lower is nearer."""

import pickle
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pipeline.images.pixels import Image
from pipeline.runtime.files import sha256_of

Distances = Callable[[Sequence[Image], Sequence[Image]], list[float]]

SMALLEST_SIDE = 63
"""Below it AlexNet's last layers have nothing left to look at."""


def load_lpips(weights: str | None) -> Distances | str:
    """Return a function of restored and clean images of equal size, or in words why there is none.

    The distance is that of torchmetrics: AlexNet's features, weighted as people judged (LPIPS
    0.1), mean over the image. Values outside [0, 1] are clamped. Nothing is fetched.

    Args:
        weights: torchvision's file ``alexnet-owt-7be5be79.pth``. Digits after the last dash of its
            name are the start of its SHA-256, which is checked.

    Source: R. Zhang, P. Isola, A. Efros, E. Shechtman, O. Wang: The Unreasonable Effectiveness of
    Deep Features as a Perceptual Metric, 2018.
    """
    if weights is None:
        return "evaluate.lpips_weights names no file of weights"
    path = Path(weights)
    if not path.is_file():
        return f"{path} was not found"
    expected = re.search(r"-([0-9a-f]{8,64})\.", path.name)
    if expected and not sha256_of(path).startswith(expected[1]):
        return f"{path} is damaged: its sha256 does not start with {expected[1]}"
    return _distances(path)


def _distances(path: Path) -> Distances | str:
    import torch
    from torchmetrics.functional.image.lpips import _NoTrainLpips

    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        features = {name.removeprefix("features."): value for name, value in found.items()
                    if name.startswith("features.")}  # fmt: skip
        # pnet_rand: its own way to the weights would be the network
        network = _NoTrainLpips(net="alex", pnet_rand=True)
        slices = network.net
        for place in range(1, 6):
            for name, value in getattr(slices, f"slice{place}").state_dict().items():
                value.copy_(features[name])
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError,
            AttributeError) as error:  # fmt: skip
        return f"{path} holds no weights of torchvision's AlexNet ({str(error)[:80]!r})"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = network.to(device)

    def tensor(images: Sequence[Image]) -> torch.Tensor:
        stacked = np.stack(images).transpose(0, 3, 1, 2).astype(np.float32)
        return torch.from_numpy(stacked).clamp(0, 1).to(device)

    @torch.inference_mode()
    def distances(restored: Sequence[Image], clean: Sequence[Image]) -> list[float]:
        found: list[float] = network(tensor(restored), tensor(clean), normalize=True).flatten()
        return [float(value) for value in found]

    return distances
