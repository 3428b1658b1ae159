"""How much memory an update would take on a GPU, counted where there is none.

One update runs on tensors without values: every operation says how large its result is, and
nothing is computed. Counted is what lives at the same time: weights, gradients, Adam's moments,
activations and what operations put between; not what cuDNN takes for itself.
"""

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pipeline.datasets.batches import Batch
from pipeline.device import Precision, autocast
from pipeline.methods.method import Method, Progress, build_method
from pipeline.models.build import skeleton
from pipeline.models.checkpointing import checkpoint_gradients
from pipeline.training.job import Job

CPU = torch.device("cpu")
LATE = Progress(step=10**9, epoch=10**9, fraction=1.0)
"""Every term of the loss at its full weight."""


def as_on_a_gpu() -> None:
    """Count as GPUs compute, the whole batch at once, from now on in this process."""
    from pipeline.models.denoiser import normalized_convolution

    normalized_convolution.IN_PARTS = ()  # type: ignore[assignment]


def counted_peak(job: Job, images: int, precision: Precision) -> int:
    """Return the most bytes that are held during an update of a share.

    Args:
        job: names the networks, the method and ``train.gradient_checkpointing``.
        images: of each domain in the share.
        precision: of the multiplications; tf32 takes as much as fp32.
    """
    with FakeTensorMode(), _Held() as held:
        _step(job, images, precision)()
    most: int = held.most
    return most


class _Held(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sum of the memory of all tensors that are alive, and its maximum."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._seen = weakref.WeakSet[Any]()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            if isinstance(value, Tensor):
                self._note(value.untyped_storage())
        return result

    def _note(self, storage: Any) -> None:
        if storage in self._seen:
            return
        self._seen.add(storage)
        size = storage.nbytes()
        self.now += size
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._freed, size)

    def _freed(self, size: int) -> None:
        self.now -= size


def _take_memory(networks: nn.Module) -> None:
    """Give every weight its own memory, in the order that convolutions like best."""

    def there(value: Tensor) -> Tensor:
        order = torch.channels_last if value.ndim == 4 else torch.contiguous_format
        return torch.empty_like(value, device=CPU, memory_format=order)

    for module in networks.modules():
        for name, weight in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(there(weight)))
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, there(buffer))


def sketch(job: Job) -> Method:
    """Return the networks of a training with the shapes of their weights, without memory."""
    with torch.device("meta"):
        return build_method(skeleton(job.restorer), job.method)


def _adam(network: nn.Module) -> torch.optim.Adam:
    """Return an optimizer that has its moments, as from the second update on."""
    for weight in network.parameters():
        weight.grad = torch.empty_like(weight)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return optimizer


def _step(job: Job, images: int, precision: Precision) -> Any:
    """Return an update of a share; the lines are those of ``pipeline/training/loop.py``."""
    settings = job.train
    method = sketch(job)
    _take_memory(method)
    # the moving average, which is updated in place
    average = [torch.empty_like(weight) for weight in method.restorer.parameters()]
    networks = [method.restorer, *(getattr(method, n) for n in method.learning_rate_factors())]
    optimizers = [_adam(network) for network in networks]
    if settings.gradient_checkpointing:
        checkpoint_gradients(method, compiled=False)
    method.train()
    shape = (images, 3, settings.patch, settings.patch)
    wanted: dict[str, Any] = {name: torch.rand(shape) for name in method.wants}
    batch = Batch(torch.rand(shape), torch.rand(shape), torch.rand(shape), **wanted)

    def step(kept: list[Tensor] = average) -> None:
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        draws = method.draw(torch.Generator(), shape)
        with autocast(CPU, precision):
            terms = method(batch.to(CPU, job.image_range), draws, LATE)
        terms["total"].backward()
        for optimizer in optimizers:
            optimizer.step()

    return step
