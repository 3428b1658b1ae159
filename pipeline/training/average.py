"""The moving average of the restorer's weights, which is what a training keeps."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class MovingAverage(AveragedModel):
    """PyTorch's averaged model, with the weights of both networks listed once.

    The library walks through the networks at every update: a twentieth of a small one's time.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        super().__init__(network)
        self.eval()
        self._average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        self._weights: list[Tensor] = list(self.module.parameters())
        self._updated: list[Tensor] = list(network.parameters())
        self._buffers_of_both = list(zip(self.module.buffers(), network.buffers(), strict=True))

    @torch.no_grad()
    def update(self) -> None:
        """Average in the network's weights; the first are taken as they are, as buffers always."""
        if self.n_averaged == 0:
            for own, value in zip(self._weights, self._updated, strict=True):
                own.copy_(value)
        else:
            self._average(self._weights, self._updated, self.n_averaged)
        for own, value in self._buffers_of_both:
            own.copy_(value)
        self.n_averaged += 1
