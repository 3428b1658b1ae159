"""Gradient checkpointing: less memory in training, for a second forward pass of every block.

T. Chen et al., Training Deep Nets with Sublinear Memory Cost, arXiv 1604.06174, 2016.
"""

import functools

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts


def checkpoint_gradients(networks: nn.Module, compiled: bool) -> int:
    """Have blocks keep their inputs alone for the backward pass; return how many blocks do.

    Loss and gradients stay the same to the last bit: random states and autocast are put back
    before a block is computed again. A network names its blocks' classes in its attribute
    ``checkpointed``. Names of weights stay as they are.

    Args:
        networks: holds them as its children, as a method does.
        compiled: whether they are compiled too. A compiled graph cannot put back the state of
            an operation that it does not know, so what dropout drew is kept, a byte a value.
    """
    run = functools.partial(checkpoint, use_reentrant=False)
    if compiled:
        drawn = [torch.ops.pipeline.draw_kept.default] if _draws() else []
        contexts = functools.partial(create_selective_checkpoint_contexts, drawn)
        run = functools.partial(run, context_fn=contexts)
    blocks = [
        block
        for network in networks.children()
        for block in _outermost(network, getattr(network, "checkpointed", ()))
    ]
    for block in blocks:
        block.forward = functools.partial(run, block.forward)
    return len(blocks)


def _outermost(network: nn.Module, kinds: tuple[type[nn.Module], ...]) -> list[nn.Module]:
    """Return the blocks of these classes that lie in no other."""
    if isinstance(network, kinds):
        return [network]
    return [block for part in network.children() for block in _outermost(part, kinds)]


def _draws() -> bool:
    """Return whether the denoiser, which defines the operation, was imported."""
    return hasattr(torch.ops.pipeline, "draw_kept")
