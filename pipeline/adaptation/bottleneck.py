"""Features of any restorer, read where its images are smallest."""

import torch
from torch import Tensor, nn

from pipeline.errors import UserError

PROBE_PIXELS = 64
"""Side of the image that finds the place; windows and levels of common restorers divide it."""


class Bottleneck:
    """The place in a restorer whose features are aligned.

    It is the last module that gives a feature map (batch, channels, height, width) of the smallest
    size, so the end of a U-Net's lowest level. A restorer of one size throughout gives its last
    features. A restorer may name another module in an attribute ``bottleneck``.

    ``name`` is the module's, ``channels`` the features', ``factor`` how much smaller than the image
    they are. Nothing of the restorer is changed; a hook is set for one pass alone.
    """

    def __init__(self, restorer: nn.Module) -> None:
        """Find it with one pass of a blank image.

        Raises:
            UserError: no module gives a feature map.
        """
        shapes: dict[str, torch.Size] = {}

        def note(name: str, output: object) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and len(output) == 1:
                shapes.pop(name, None)  # a module that runs twice counts where it ran last
                shapes[name] = output.shape

        handles = [
            module.register_forward_hook(lambda m, i, output, name=name: note(name, output))
            for name, module in restorer.named_modules()
            if name
        ]
        training = restorer.training
        try:
            with torch.no_grad():
                restorer.eval()(torch.zeros(1, 3, PROBE_PIXELS, PROBE_PIXELS))
        finally:
            restorer.train(training)
            for handle in handles:
                handle.remove()
        self.name = getattr(restorer, "bottleneck", None) or _smallest(shapes)
        if self.name not in shapes:
            raise UserError(
                f"{type(restorer).__name__}: found no feature map {self.name or ''!r} (batch,"
                " channels, height, width) inside this restorer; name a module in its attribute"
                " 'bottleneck'"
            )
        self.channels = shapes[self.name][1]
        self.factor = PROBE_PIXELS // shapes[self.name][2]

    def read(self, restorer: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return the restored images and the features, of one pass."""
        found: list[Tensor] = []
        place = restorer.get_submodule(self.name)
        handle = place.register_forward_hook(lambda module, given, output: found.append(output))
        try:
            restored: Tensor = restorer(images)
        finally:
            handle.remove()
        return restored, found[-1]


def _smallest(shapes: dict[str, torch.Size]) -> str:
    maps = {
        name: shape[2]
        for name, shape in shapes.items()
        if shape[2] == shape[3] and PROBE_PIXELS % shape[2] == 0 and shape[1] > 3
    }
    smallest = min(maps.values(), default=0)
    return next((name for name in reversed(maps) if maps[name] == smallest), "")
