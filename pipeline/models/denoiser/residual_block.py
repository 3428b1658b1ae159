"""The denoiser's residual block: diffusers' weights and results, in less memory and time."""

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


class ResidualBlock(nn.Module):
    """The residual block of diffusers with the same weights, for less memory and time.

    It keeps one input of each convolution's normalization for the backward pass, where diffusers'
    ``ResnetBlock2D`` keeps every result up to the convolution. See ``NormalizedConvolution``. The
    noise level scales and shifts the second normalization. A block that halves or doubles the sides
    does so before its first convolution, and to what it adds its result to.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm1, self.conv1 = block.norm1, block.conv1
        self.time_emb_proj = block.time_emb_proj
        self.norm2, self.conv2 = block.norm2, block.conv2
        self.dropout: float = block.dropout.p
        self.conv_shortcut = block.conv_shortcut
        self.resampling: Resampling = None
        if block.downsample is not None:
            self.resampling = "halve"
        elif block.upsample is not None:
            self.resampling = "double"

    def forward(self, features: Tensor, embedding: Tensor) -> Tensor:
        """Return features of the same height and width, or half or twice these.

        Args:
            features: (batch, channels, height, width).
            embedding: of the noise level, (batch, embedding channels).
        """
        inner = _convolve(
            features, self.norm1, self.norm1.weight[None], self.norm1.bias[None], self.conv1,
            resampling=self.resampling,
        )  # fmt: skip
        scale, shift = self.time_emb_proj(F.silu(embedding)).chunk(2, dim=1)
        kept = draw_kept(inner, self.dropout) if self.training and self.dropout else None
        outer = _convolve(
            inner, self.norm2, self.norm2.weight * (1 + scale),
            self.norm2.bias * (1 + scale) + shift, self.conv2, kept, 1 / (1 - self.dropout),
        )  # fmt: skip
        beside = resample(features, self.resampling)
        outer += beside if self.conv_shortcut is None else self.conv_shortcut(beside)
        return outer


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


@torch.library.custom_op("pipeline::draw_kept", mutates_args=())
def draw_kept(features: Tensor, dropout: float) -> Tensor:
    """Return which values survive dropout, bool in the shape and memory order of ``features``.

    Each takes 16 random bits, so the probability is rounded to a multiple of 1/65536. On the
    processor this is six times as fast as ``bernoulli_``, which took 3 to 5 % of a training step.
    An operation of its own: torch.compile cannot look into ``random_``, and would end its graph at
    every block.
    """
    draws = torch.empty(-(-features.numel() // 4), dtype=torch.int64, device=features.device)
    draws.random_(-(2**63), None)
    kept = draws.view(torch.int16)[: features.numel()] >= round(dropout * 2**16) - 2**15
    return kept.as_strided(features.shape, features.stride())


@draw_kept.register_fake
def _(features: Tensor, dropout: float) -> Tensor:
    return torch.empty_like(features, dtype=torch.bool)


def _convolve(
    features: Tensor,
    norm: nn.GroupNorm,
    scale: Tensor,
    offset: Tensor,
    conv: nn.Conv2d,
    kept: Tensor | None = None,
    gain: float = 1.0,
    resampling: Resampling = None,
) -> Tensor:
    result: Tensor = NormalizedConvolution.apply(
        features, scale, offset, conv.weight, conv.bias, kept, gain, resampling, norm.num_groups,
        norm.eps,
    )  # fmt: skip
    return result


class NormalizedConvolution(Function):
    """3x3 convolution of resample(dropout(silu(scale x normalized + offset))), as in every block.

    The backward pass needs the results of all these; they are cheap and computed again there, so
    that only ``features`` and which values were dropped stay in memory. A batch that fits into a
    processor's cache keeps its results: it is small and soon used. Works in the type of
    ``features``: autocast does not see the backward pass of a Function.
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
        """Return the convolved features.

        Args:
            ctx: what the backward pass will need.
            features: (batch, channels, height, width).
            scale: of the normalized features, (batch or 1, channels).
            offset: added to them, the same shape.
            weight: (channels out, channels, 3, 3).
            bias: (channels out,).
            kept: which values dropout keeps, shaped as ``features``, None for all.
            gain: what kept values are multiplied by.
            resampling: of the sides before the convolution.
            groups: of the normalization.
            eps: of the normalization.
        """
        ctx.gain, ctx.resampling, ctx.groups, ctx.eps = gain, resampling, groups, eps
        places = _places(features)
        active, means, rstds = _empty(features, resampling), [], []
        for place in places:
            normalized, mean, rstd = group_norm(
                features[place], _of(scale, place), _of(offset, place), groups, eps
            )
            _activate(normalized, kept, place, gain, resampling, active[place])
            means.append(mean)
            rstds.append(rstd)
        small = (normalized, active) if _is_small(features, places) else (None, None)
        del normalized
        ctx.save_for_backward(
            features, scale, offset, weight, kept, torch.cat(means), torch.cat(rstds), *small
        )
        return F.conv2d(active, weight.to(active.dtype), bias.to(active.dtype), padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the first five arguments."""
        features, scale, offset, weight, kept, mean, rstd, *small = ctx.saved_tensors
        places = _places(features)
        normalized, active = [small[0]], small[1]
        if active is None:
            normalized, active = [], _empty(features, ctx.resampling)
            for place in places:
                values, _, _ = group_norm(
                    features[place], _of(scale, place), _of(offset, place), ctx.groups, ctx.eps
                )
                _activate(values, kept, place, ctx.gain, ctx.resampling, active[place])
                normalized.append(values)
        to_active, to_weight, to_bias = torch.ops.aten.convolution_backward(
            gradient, active, weight.to(active.dtype), [len(weight)],
            [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, True, True],
        )  # fmt: skip
        del active
        to_features, to_affine = torch.empty_like(features), []
        for place in places:
            to_values = _resample_back(to_active[place], ctx.resampling)
            to_values = _drop(to_values, kept, place, ctx.gain)
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


def _is_small(features: Tensor, places: list[slice]) -> bool:
    """Return whether the processor's cache holds the whole batch."""
    return len(places) == 1 and features.device.type in IN_PARTS


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
    normalized: Tensor,
    kept: Tensor | None,
    place: slice,
    gain: float,
    resampling: Resampling,
    out: Tensor,
) -> None:
    """Write resample(dropout(silu(normalized))) where the convolution reads it."""
    if resampling is None:
        _drop(torch.ops.aten.silu.out(normalized, out=out), kept, place, gain)
    else:
        out.copy_(resample(_drop(F.silu(normalized), kept, place, gain), resampling))


def _of(affine: Tensor, place: slice) -> Tensor:
    return affine if len(affine) == 1 else affine[place]


def _drop(values: Tensor, kept: Tensor | None, place: slice, gain: float) -> Tensor:
    """Apply dropout in place."""
    if kept is None:
        return values
    # as bytes: PyTorch converts truth values one by one
    return values.mul_(kept[place].view(torch.uint8).to(values.dtype)).mul_(gain)
