"""The half of a residual block: normalization, SiLU, dropout, resampling and convolution."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from pipeline.models.denoiser.group_norm import group_norm, group_norm_gradients

Resampling = Literal["halve", "double"] | None
"""What a block does to the sides of its features."""

IN_PARTS = ("cpu",)
"""Kinds of device that treat a batch in parts; the dry run counts a GPU's memory without them."""

CACHED_BYTES = 2**20
"""Of features that a processor treats at once; more leave its cache, fewer are many small steps."""


def normalized_convolution(
    features: Tensor,
    norm: nn.GroupNorm,
    scale: Tensor,
    offset: Tensor,
    conv: nn.Conv2d,
    kept: Tensor | None = None,
    gain: float = 1.0,
    resampling: Resampling = None,
) -> Tensor:
    """Return conv(resample(dropout(silu(scale x normalized + offset)))), as in every block.

    A processor computes a small batch as it is written here, and others as
    ``NormalizedConvolution`` does.

    Args:
        features: (batch, channels, height, width).
        norm: normalizes in groups; its weight and bias are in ``scale`` and ``offset``.
        scale: of the normalized features, (batch or 1, channels).
        offset: added to them, the same shape.
        conv: 3x3 convolution.
        kept: which values dropout keeps, shaped as ``features``, None for all.
        gain: what kept values are multiplied by.
        resampling: of the sides before the convolution.
    """
    groups, eps = norm.num_groups, norm.eps
    if _is_small(features):
        if len(scale) == 1:
            normalized = F.group_norm(features, groups, scale[0], offset[0], eps)
        else:
            normalized = F.group_norm(features, groups, eps=eps) * scale[..., None, None]
            normalized = normalized + offset[..., None, None]
        active = resample(_drop(F.silu(normalized), kept, gain), resampling)
        convolved: Tensor = conv(active)
    else:
        convolved = NormalizedConvolution.apply(
            features, scale, offset, conv.weight, conv.bias, kept, gain, resampling, groups, eps
        )
    return convolved


def resample(features: Tensor, resampling: Resampling) -> Tensor:
    """Return features averaged over squares of four pixels, or each pixel fourfold, or as is."""
    if resampling == "halve":
        return F.avg_pool2d(features, 2)
    if resampling == "double":
        return F.interpolate(features, scale_factor=2, mode="nearest")
    return features


def _resample_back(gradient: Tensor, resampling: Resampling) -> Tensor:
    """Return the gradient of what was resampled: each is the other's transpose times a factor."""
    if resampling == "halve":
        return resample(gradient, "double").div_(4)
    if resampling == "double":
        return resample(gradient, "halve").mul_(4)
    return gradient


class NormalizedConvolution(Function):
    """What ``normalized_convolution`` returns, with little memory.

    The backward pass needs the results of all that lies before the convolution; they are cheap and
    computed again there, so that only ``features`` and which values were dropped stay in memory.
    Works in the type of ``features``: autocast does not see the backward pass of a Function.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        scale: Tensor,
        offset: Tensor,
        weight: Tensor,
        bias: Tensor,
        kept: Tensor | None,
        gain: float,
        resampling: Resampling,
        groups: int,
        eps: float,
    ) -> Tensor:
        """Return the convolved features; weight and bias are the convolution's."""
        ctx.gain, ctx.resampling, ctx.groups, ctx.eps = gain, resampling, groups, eps
        places = _places(features)
        active, means, rstds = _empty(features, resampling), [], []
        for place in places:
            normalized, mean, rstd = group_norm(
                features[place], _of(scale, place), _of(offset, place), groups, eps
            )
            _activate(normalized, _part(kept, place), gain, resampling, active[place])
            means.append(mean)
            rstds.append(rstd)
        del normalized
        mean, rstd = torch.cat(means), torch.cat(rstds)
        ctx.save_for_backward(features, scale, offset, weight, kept, mean, rstd)
        return F.conv2d(active, weight.to(active.dtype), bias.to(active.dtype), padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the first five arguments."""
        features, scale, offset, weight, kept, mean, rstd = ctx.saved_tensors
        places = _places(features)
        normalized, active = [], _empty(features, ctx.resampling)
        for place in places:
            values, _, _ = group_norm(
                features[place], _of(scale, place), _of(offset, place), ctx.groups, ctx.eps
            )
            _activate(values, _part(kept, place), ctx.gain, ctx.resampling, active[place])
            normalized.append(values)
        to_active, to_weight, to_bias = torch.ops.aten.convolution_backward(
            gradient, active, weight.to(active.dtype), [len(weight)],
            [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, True, True],
        )  # fmt: skip
        del active
        to_features, to_affine = torch.empty_like(features), []
        for place in places:
            to_values = _resample_back(to_active[place], ctx.resampling)
            to_values = _drop(to_values, _part(kept, place), ctx.gain)
            to_values = torch.ops.aten.silu_backward(to_values, normalized.pop(0))
            to_affine.append(
                group_norm_gradients(
                    to_values, features[place], mean[place], rstd[place], _of(scale, place),
                    out=to_features[place],
                )
            )  # fmt: skip
        to_scale, to_offset = map(torch.cat, zip(*to_affine, strict=True))
        if len(scale) == 1:  # shared by all samples
            to_scale, to_offset = (value.sum(0, keepdim=True) for value in (to_scale, to_offset))
        to_conv = (value.to(weight.dtype) for value in (to_weight, to_bias))
        return to_features, to_scale, to_offset, *to_conv, None, None, None, None, None


def _places(features: Tensor) -> list[slice]:
    """Return the parts of a batch that are treated one after the other.

    On the processor as many samples as leave what lies between two convolutions in its cache; a GPU
    has the whole batch at once, in fewer and larger steps.
    """
    count = len(features)
    if features.device.type not in IN_PARTS:
        return [slice(0, count)]
    sample_bytes = 4 * features[0].numel()  # single precision, whatever the images have
    together = max(1, CACHED_BYTES // sample_bytes)
    return [slice(first, min(first + together, count)) for first in range(0, count, together)]


def _is_small(features: Tensor) -> bool:
    """Return whether a processor's cache holds a whole batch, in single precision.

    Then results may stay, and PyTorch's operations are faster than what saves memory. In bfloat16
    they are not: they would convert back and forth.
    """
    single = features.dtype == torch.float32
    return single and features.device.type in IN_PARTS and 4 * features.numel() <= CACHED_BYTES


def _empty(features: Tensor, resampling: Resampling) -> Tensor:
    """Return room for resampled features, in their memory order."""
    batch, channels, height, width = features.shape
    if resampling == "halve":
        height, width = height // 2, width // 2
    elif resampling == "double":
        height, width = 2 * height, 2 * width
    last = features.is_contiguous(memory_format=torch.channels_last)
    return torch.empty(
        (batch, channels, height, width), dtype=features.dtype, device=features.device,
        memory_format=torch.channels_last if last else torch.contiguous_format,
    )  # fmt: skip


def _activate(
    normalized: Tensor, kept: Tensor | None, gain: float, resampling: Resampling, out: Tensor
) -> None:
    """Write resample(dropout(silu(normalized))) where the convolution reads it."""
    if resampling is None:
        _drop(torch.ops.aten.silu.out(normalized, out=out), kept, gain)
    else:
        out.copy_(resample(_drop(F.silu(normalized), kept, gain), resampling))


def _of(affine: Tensor, place: slice) -> Tensor:
    return affine if len(affine) == 1 else affine[place]


def _part(kept: Tensor | None, place: slice) -> Tensor | None:
    return None if kept is None else kept[place]


def _drop(values: Tensor, kept: Tensor | None, gain: float) -> Tensor:
    """Apply dropout in place."""
    if kept is None:
        return values
    # as bytes: PyTorch converts truth values one by one
    return values.mul_(kept.view(torch.uint8).to(values.dtype)).mul_(gain)
