"""Gradient checkpointing: the same bits in less memory, in every precision, compiled too."""

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from pipeline.config.build import build
from pipeline.config.restorers import RestorerSettings
from pipeline.datasets.batches import Batch
from pipeline.methods.method import Method, Progress, build_method
from pipeline.models.build import build_restorer
from pipeline.models.checkpointing import checkpoint_gradients
from tests.helpers.small_restorers import SMALL
from tests.helpers.training_job import NOISE_SPACE, RESTORER

AT_ONCE = Progress(step=1, epoch=1, fraction=0.0)


def method() -> Method:
    torch.manual_seed(0)
    return build_method(build_restorer(RESTORER), NOISE_SPACE).train()


def step(of: Method, precision: torch.dtype) -> tuple[Tensor, list[Tensor]]:
    """Return loss and gradients of one joint step, dropout included."""
    generator = torch.Generator().manual_seed(1)
    batch = Batch(*(torch.rand(2, 3, 16, 16, generator=generator) for _ in range(3)))
    draws = of.draw(generator, (2, 3, 16, 16))
    torch.manual_seed(2)
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        loss = of(batch, draws, AT_ONCE)["total"]
    loss.backward()
    gradients = [value.grad for value in of.parameters()]
    assert all(value is not None for value in gradients)
    return loss.detach(), gradients  # type: ignore[return-value]


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_loss_and_gradients_are_the_same_to_the_last_bit(precision: torch.dtype) -> None:
    loss, gradients = step(method(), precision)
    lean = method()
    names = list(lean.state_dict())
    assert checkpoint_gradients(lean, compiled=False) > 5
    assert list(lean.state_dict()) == names
    found, found_gradients = step(lean, precision)
    assert torch.equal(found, loss)
    assert all(map(torch.equal, found_gradients, gradients))


@pytest.mark.parametrize("name", sorted(SMALL))
def test_every_restorer_keeps_less(name: str) -> None:
    """Counted is what autograd holds between the passes, whatever it is called."""
    settings = build(RestorerSettings, {"kind": name, **SMALL[name]}, "restorer")
    torch.manual_seed(0)
    plain = nn.ModuleDict({"restorer": build_restorer(settings)})
    lean = copy.deepcopy(plain)
    assert checkpoint_gradients(lean, compiled=False) > 0
    images = torch.rand(1, 3, 2 * settings.factor, 2 * settings.factor)
    kept = [held_bytes(of["restorer"], images) for of in (plain, lean)]
    assert kept[1] < 0.7 * kept[0]
    for one, other in zip(plain.parameters(), lean.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        assert torch.equal(one.grad, other.grad)


def held_bytes(network: Callable[[Tensor], Tensor], images: Tensor) -> int:
    """Return how much of what the forward pass saved for the backward pass lives after it."""
    held: dict[int, Any] = {}

    def pack(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        held[storage.data_ptr()] = (weakref.ref(value), storage.nbytes())
        return value

    with saved_tensors_hooks(pack, lambda value: value):
        made = network(images)
    gc.collect()
    alive = sum(size for reference, size in held.values() if reference() is not None)
    made.square().mean().backward()
    return alive


@pytest.mark.slow  # a minute and more of tracing
def test_compiled_it_has_the_same_gradients_dropout_included() -> None:
    """The backend runs what a compiler would be given; without one on this machine too."""
    loss, gradients = step(method(), torch.float32)
    lean = method()
    checkpoint_gradients(lean, compiled=True)
    for network in (lean.restorer, lean.denoiser):
        network.compile(backend="aot_eager_decomp_partition", fullgraph=True)
    found, found_gradients = step(lean, torch.float32)
    torch._dynamo.reset()
    torch.testing.assert_close(found, loss, rtol=1e-5, atol=1e-6)
    for one, other in zip(found_gradients, gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-6)
