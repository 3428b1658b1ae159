"""Random numbers that depend on names and counters alone, never on what ran before.

The draws of training step n come from (seed, name, n). So a run that was stopped and went on
equals an unbroken one, and the number of loader processes changes nothing.
"""

import contextlib
import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def stable_seed(*parts: int | str) -> int:
    """Return a seed in [0, 2**63) made from the parts; the same on every machine and run."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def numpy_generator(*parts: int | str) -> np.random.Generator:
    """Return a NumPy generator seeded by the parts."""
    return np.random.default_rng(stable_seed(*parts))


def torch_generator(*parts: int | str, device: str = "cpu") -> "torch.Generator":
    """Return a torch generator; on the CPU every device sees the same draws."""
    import torch

    return torch.Generator(device).manual_seed(stable_seed(*parts))


@contextlib.contextmanager
def seeded_torch(*parts: int | str) -> Iterator[None]:
    """Seed torch's global generators within the block, for library code that knows no other."""
    import torch

    with torch.random.fork_rng(devices=[]):  # weights are made on the CPU
        torch.manual_seed(stable_seed(*parts))
        yield
