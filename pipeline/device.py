"""What torch runs on: threads, precision, repeatability."""

import ctypes
import os
import platform
from contextlib import AbstractContextManager
from typing import Literal

import torch

Precision = Literal["fp32", "tf32", "bf16"]
"""``tf32``: fp32, but GPUs round what they convolve to 10 bits of mantissa and are much faster."""


def prepare_torch(threads: int) -> None:
    """Set the number of threads and demand that the same input always gives the same bytes."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats only with it
    torch.set_num_threads(threads)
    # of use_deterministic_algorithms(True) all but the compiler, whose import takes two seconds
    torch.set_deterministic_debug_mode("error")
    # filling fresh memory costs time, and nothing here reads it before writing
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.backends.cudnn.benchmark = False
    _keep_freed_memory()


def _keep_freed_memory() -> None:
    """Have glibc keep what is freed: fresh pages for large tensors cost 5 to 10 % of a step."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        trim_threshold, mmap_max = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of glibc's malloc.h
        libc.mallopt(mmap_max, 0)
        libc.mallopt(trim_threshold, 2**31 - 1)


def use_precision(wanted: str) -> Precision:
    """Return the precision to use, from now on; ``auto`` is bfloat16 where the hardware has it.

    Args:
        wanted: a precision or ``auto``.
    """
    # PyTorch's own default is tf32, whatever it is called
    torch.backends.cudnn.allow_tf32 = wanted == "tf32"
    if wanted == "bf16" or (wanted == "auto" and has_bfloat16()):
        return "bf16"
    return "tf32" if wanted == "tf32" else "fp32"


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """Return a context in which networks multiply in the given precision.

    Weights, images and losses stay float32. Fabric's own mixed precision would round the input
    images to bfloat16, eight bits of mantissa, which a restorer then cannot get back.
    """
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def has_bfloat16() -> bool:
    """Return whether the accelerator, or without one the processor, multiplies bfloat16."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def describe_device(device: torch.device) -> str:
    """Return the name of an accelerator, or of the processor."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = torch.cpu.get_capabilities().get("cpu_name") or platform.machine()
    return f"CPU {name}"
