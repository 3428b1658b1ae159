"""Features of any restorer, read where its images are smallest."""

import contextlib
import copy
import math
from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pipeline.runtime.errors import UserError

PROBE_PIXELS = 64
"""Least side of the images that find the place: large enough for several levels and windows."""


class _Reached(Exception):
    """The features are there: the rest of the pass is not needed."""


class Bottleneck:
    """The place in a restorer whose features are aligned.

    A restorer names it in an attribute ``bottleneck``: a module whose output is a feature map
    (batch, channels, height, width), or the tokens (batch, places, channels) of a square one. Of
    others it is the last module that gives a map of the smallest size, so the end of a U-Net's
    lowest level; a restorer of one size throughout gives its last features.

    ``name`` is the module's, ``channels`` the features', ``factor`` how much smaller than the image
    they are. Nothing of the restorer is changed; a hook is set for one pass alone.
    """

    def __init__(self, restorer: nn.Module) -> None:
        """Find it with passes of two sizes: what does not grow with the image is no feature map.

        Raises:
            UserError: no module gives a feature map, or the restorer takes no such image.
        """
        multiple = int(getattr(restorer, "factor", 1))
        side = -(-PROBE_PIXELS // multiple) * multiple
        chosen = getattr(restorer, "bottleneck", None)
        (small, runs), (large, _) = (_maps(restorer, pixels, chosen) for pixels in (side, 2 * side))
        factors = {
            name: side // shape[2]
            for name, shape in small.items()
            if _grows(shape, large.get(name)) and side % shape[2] == 0
        }
        self.name: str = chosen or _last_smallest(factors)
        if self.name not in factors:
            raise UserError(
                f"{type(restorer).__name__}: found no feature map {self.name!r} (batch,"
                " channels, height, width) inside this restorer; name a module in its attribute"
                " 'bottleneck'"
            )
        self.channels = small[self.name][1]
        self.factor = factors[self.name]
        self._runs = runs[self.name]

    def read(self, restorer: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the restored images and the features (batch, channels, height, width)."""
        found: list[Tensor] = []
        # copied, since what follows may write in place: then both ways to read give the same
        restored = self._run(restorer, images, lambda output: found.append(output.clone()))
        return restored, _as_map(found[-1])

    def features(self, restorer: nn.Module, images: Tensor) -> Tensor:
        """Return the features alone; what follows them in the restorer is not computed."""
        found: list[Tensor] = []

        def note(output: Tensor) -> None:
            found.append(output)
            if len(found) == self._runs:
                raise _Reached

        with contextlib.suppress(_Reached):
            self._run(restorer, images, note)
        return _as_map(found[-1])

    def _run(self, restorer: nn.Module, images: Tensor, note: Callable[[Tensor], None]) -> Tensor:
        place = restorer.get_submodule(self.name)
        handle = place.register_forward_hook(lambda module, given, output: note(output))
        try:
            restored: Tensor = restorer(images)
        finally:
            handle.remove()
        return restored


def _maps(
    restorer: nn.Module, pixels: int, chosen: str | None
) -> tuple[dict[str, torch.Size], Counter[str]]:
    """Return shapes of maps by module, as they last ran, and how often each ran; no computing."""
    probe = copy.deepcopy(restorer).to("meta").eval()
    shapes: dict[str, torch.Size] = {}
    runs: Counter[str] = Counter()

    def note(name: str, output: object) -> None:
        runs[name] += 1
        if not isinstance(output, Tensor) or len(output) != 1:
            return
        # tokens count where they are asked for by name: within blocks they may be of windows
        if output.ndim == 4 or (output.ndim == 3 and name == chosen):
            shapes.pop(name, None)  # a module that runs twice counts where it ran last
            shapes[name] = _as_map(output).shape

    for name, module in probe.named_modules():
        if name:
            module.register_forward_hook(lambda m, i, output, name=name: note(name, output))
    try:
        with torch.no_grad():
            probe(torch.zeros(1, 3, pixels, pixels, device="meta"))
    except (RuntimeError, ValueError, AssertionError, NotImplementedError) as error:
        raise UserError(
            f"{type(restorer).__name__}: an image of {pixels}x{pixels} pixels, by which the place"
            f" of its features is looked for, ended with: {error}"
        ) from error
    return shapes, runs


def _as_map(features: Tensor) -> Tensor:
    if features.ndim == 4:
        return features
    side = math.isqrt(features.shape[1])
    return features.mT.reshape(len(features), -1, side, side)


def _grows(small: torch.Size, large: torch.Size | None) -> bool:
    more_than_an_image = small[1] > 3
    square = small[2] == small[3]
    return more_than_an_image and square and large == (1, small[1], 2 * small[2], 2 * small[3])


def _last_smallest(factors: dict[str, int]) -> str:
    highest = max(factors.values(), default=0)
    return next((name for name in reversed(factors) if factors[name] == highest), "")
