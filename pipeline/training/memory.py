"""Out of memory: what to set instead."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from pipeline.config.running import Train
from pipeline.runtime.errors import UserError

WORDS = ("out of memory", "can't allocate memory", "_STATUS_ALLOC_FAILED")
"""One of them stands in what PyTorch, its allocator for processors, cuDNN or cuBLAS say."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error says that memory did not suffice, of a GPU or of the machine."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in WORDS)


def more_shares(settings: Train) -> int | None:
    """Return the next larger ``accumulate`` that divides the batch; None where a share is one."""
    part = settings.batch // (settings.nodes * settings.devices)
    larger = (n for n in range(settings.accumulate + 1, part + 1) if part % n == 0)
    return next(larger, None)


def advice(settings: Train) -> str:
    """Return what to set for less memory, the setting that changes no result first."""
    ways = []
    if not settings.gradient_checkpointing:
        ways.append("train.gradient_checkpointing=true (a third more time, the same result)")
    shares = more_shares(settings)
    if shares is not None:
        ways.append(f"train.accumulate={shares} (the same time, other last digits)")
    return " or ".join(ways) or "a smaller train.patch"


@contextmanager
def memory_errors(settings: Train, checkpoint: Path) -> Iterator[None]:
    """Turn out of memory into one line; the checkpoint stays as it is.

    Raises:
        UserError: memory did not suffice.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        saved = f"last good checkpoint: {checkpoint}" if checkpoint.is_file() else "none saved"
        first = str(error).strip().partition("\n")[0][:200]
        raise UserError(f"out of memory ({saved}): set {advice(settings)}; {first}") from None
