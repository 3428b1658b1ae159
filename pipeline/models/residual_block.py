"""The denoiser's residual block: diffusers' weights and results, in less memory and time."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable


class ResidualBlock(nn.Module):
    """The residual block of diffusers with the same weights, for less memory and time.

    It keeps one input of each convolution's normalization for the backward pass, where diffusers'
    ``ResnetBlock2D`` keeps every result up to the convolution. See ``NormalizedConvolution``.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.norm1, self.conv1 = block.norm1, block.conv1
        self.time_emb_proj = block.time_emb_proj
        self.norm2, self.conv2 = block.norm2, block.conv2
        self.dropout: float = block.dropout.p
        self.conv_shortcut = block.conv_shortcut

    def forward(self, features: Tensor, embedding: Tensor) -> Tensor:
        """Return features of the same height and width.

        Args:
            features: (batch, channels, height, width).
            embedding: of the noise level, (batch, embedding channels).
        """
        inner = _convolve(features, self.norm1, self.conv1, None)
        inner += self.time_emb_proj(F.silu(embedding))[:, :, None, None]
        kept = draw_kept(inner, self.dropout) if self.training and self.dropout else None
        outer = _convolve(inner, self.norm2, self.conv2, kept, 1 / (1 - self.dropout))
        outer += features if self.conv_shortcut is None else self.conv_shortcut(features)
        return outer


def draw_kept(features: Tensor, dropout: float) -> Tensor:
    """Return which values survive dropout, bool in the shape and memory order of ``features``.

    Each takes 16 random bits, so the probability is rounded to a multiple of 1/65536. On the
    processor this is six times as fast as ``bernoulli_``, which took 3 to 5 % of a training step.
    """
    draws = torch.empty(-(-features.numel() // 4), dtype=torch.int64, device=features.device)
    draws.random_(-(2**63), None)
    kept = draws.view(torch.int16)[: features.numel()] >= round(dropout * 2**16) - 2**15
    return kept.as_strided(features.shape, features.stride())


def _convolve(
    features: Tensor, norm: nn.GroupNorm, conv: nn.Conv2d, kept: Tensor | None, gain: float = 1.0
) -> Tensor:
    parameters = (norm.weight, norm.bias, conv.weight, conv.bias)
    result: Tensor = NormalizedConvolution.apply(
        features, *parameters, kept, gain, norm.num_groups, norm.eps
    )
    return result


class NormalizedConvolution(Function):
    """3x3 convolution of dropout(silu(group_norm(features))), the order of every residual block.

    The backward pass needs the results of all three; they are cheap and computed again there, so
    that only ``features`` and which values were dropped stay in memory. Works in the type of
    ``features``: autocast does not see the backward pass of a Function.
    """

    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor,
        weight: Tensor,
        bias: Tensor,
        kept: Tensor | None,
        gain: float,
        groups: int,
        eps: float,
    ) -> Tensor:
        """Return the convolved features.

        Args:
            ctx: what the backward pass will need.
            features: (batch, channels, height, width).
            norm_weight: (channels,).
            norm_bias: (channels,).
            weight: (channels out, channels, 3, 3).
            bias: (channels out,).
            kept: which values dropout keeps, shaped as ``features``, None for all.
            gain: what kept values are multiplied by.
            groups: of the normalization.
            eps: of the normalization.
        """
        batch, channels = features.shape[:2]
        pixels = features.shape[2:].numel()
        normalized, mean, rstd = torch.native_group_norm(
            features, norm_weight, norm_bias, batch, channels, pixels, groups, eps
        )
        ctx.save_for_backward(features, norm_weight, norm_bias, weight, kept, mean, rstd)
        ctx.gain, ctx.groups, ctx.eps = gain, groups, eps
        active = _drop(F.silu(normalized, inplace=True), kept, gain)
        return F.conv2d(active, weight.to(active.dtype), bias.to(active.dtype), padding=1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the first five arguments."""
        features, norm_weight, norm_bias, weight, kept, mean, rstd = ctx.saved_tensors
        batch, channels = features.shape[:2]
        pixels = features.shape[2:].numel()
        normalized, _, _ = torch.native_group_norm(
            features, norm_weight, norm_bias, batch, channels, pixels, ctx.groups, ctx.eps
        )
        active = _drop(F.silu(normalized), kept, ctx.gain)
        to_active, to_weight, to_bias = torch.ops.aten.convolution_backward(
            gradient, active, weight.to(active.dtype), [len(weight)],
            [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, True, True],
        )  # fmt: skip
        to_normalized = torch.ops.aten.silu_backward(_drop(to_active, kept, ctx.gain), normalized)
        del active, to_active, normalized
        to_norm = group_norm_gradients(to_normalized, features, mean, rstd, norm_weight)
        to_conv = (value.to(weight.dtype) for value in (to_weight, to_bias))
        return *to_norm, *to_conv, None, None, None, None


def _drop(values: Tensor, kept: Tensor | None, gain: float) -> Tensor:
    """Apply dropout in place."""
    return values if kept is None else values.mul_(kept).mul_(gain)


def group_norm_gradients(
    gradient: Tensor, features: Tensor, mean: Tensor, rstd: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of a group normalization's input, weight and bias.

    PyTorch's own is up to 20 times slower on the processor in the memory order of convolutions
    (channels last).

    Args:
        gradient: of the result, (batch, channels, height, width).
        features: the input, the same shape.
        mean: (batch, groups).
        rstd: 1 / standard deviation, (batch, groups).
        weight: (channels,).
    """
    batch, channels = features.shape[:2]
    groups = mean.shape[1]
    count = features[0].numel() // groups
    # sums over the pixels, then over the channels of each group: (batch, groups, channels each)
    parts = (batch, groups, channels // groups)
    plain = gradient.sum((2, 3), dtype=torch.float32).view(parts)
    product = (gradient * features).sum((2, 3), dtype=torch.float32).view(parts)
    mean, rstd, scale = mean.float()[..., None], rstd.float()[..., None], weight.view(parts[1:])
    centred = (product - mean * plain) * rstd
    slope = -(centred * scale).sum(2, keepdim=True) * rstd.square() / count
    offset = -(plain * scale).sum(2, keepdim=True) * rstd / count - slope * mean

    def per_channel(value: Tensor) -> Tensor:
        return value.expand(parts).reshape(batch, channels, 1, 1)

    result = torch.addcmul(per_channel(offset), features, per_channel(slope))
    result.addcmul_(gradient, per_channel(rstd * scale))
    return result.to(features.dtype), centred.sum(0).flatten(), plain.sum(0).flatten()
