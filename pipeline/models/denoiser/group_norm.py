"""Group normalization and its gradients, in single precision whatever the images have."""

import math

import torch
from torch import Tensor


def group_norm(
    features: Tensor, scale: Tensor, offset: Tensor, groups: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return scale x normalized + offset, and mean and 1 / standard deviation of each group.

    Args:
        features: (batch, channels, height, width).
        scale: (batch or 1, channels).
        offset: the same shape.
        groups: that the channels fall into.
        eps: added to the variance.
    """
    batch, channels, *sides = features.shape
    size = (batch, channels, math.prod(sides), groups, eps)
    # GPUs normalize in one type only, and bfloat16 is too coarse for a mean
    given = features if features.device.type == "cpu" else features.float()
    if len(scale) == 1:
        result, mean, rstd = torch.native_group_norm(given, scale[0], offset[0], *size)
        return result.to(features.dtype), mean, rstd
    result, mean, rstd = torch.native_group_norm(given, None, None, *size)
    result = result.to(features.dtype)
    result.mul_(scale[:, :, None, None].to(result.dtype))
    result.add_(offset[:, :, None, None].to(result.dtype))
    return result, mean, rstd


def group_norm_gradients(
    gradient: Tensor, features: Tensor, mean: Tensor, rstd: Tensor, scale: Tensor, out: Tensor
) -> tuple[Tensor, Tensor]:
    """Write the gradient of the input of ``group_norm``; return those of scale and offset.

    PyTorch's own is up to 20 times slower on the processor in the memory order of convolutions
    (channels last).

    Args:
        gradient: of the result, (batch, channels, height, width).
        features: the input, the same shape.
        mean: (batch, groups).
        rstd: 1 / standard deviation, (batch, groups).
        scale: (batch or 1, channels).
        out: where the gradient of the input goes, shaped and of the type of ``features``.
    """
    batch, channels = features.shape[:2]
    groups = mean.shape[1]
    count = features[0].numel() // groups
    # converted once: operations on several types at a time are many times slower
    gradient, features = gradient.float(), features.float()
    # sums over the pixels, then over the channels of each group: (batch, groups, channels each)
    parts = (batch, groups, channels // groups)
    plain = gradient.sum((2, 3)).view(parts)
    space = gradient * features
    product = space.sum((2, 3)).view(parts)
    mean, rstd = mean.float()[..., None], rstd.float()[..., None]
    factor = scale.float().view(len(scale), *parts[1:])
    centred = (product - mean * plain) * rstd
    slope = -(centred * factor).sum(2, keepdim=True) * rstd.square() / count
    offset = -(plain * factor).sum(2, keepdim=True) * rstd / count - slope * mean

    def per_channel(value: Tensor) -> Tensor:
        return value.expand(parts).reshape(batch, channels, 1, 1)

    result = out if out.dtype == torch.float32 else space
    torch.addcmul(per_channel(offset), features, per_channel(slope), out=result)
    result.addcmul_(gradient, per_channel(rstd * factor))
    if result is not out:
        out.copy_(result)
    to_affine = (value.view(batch, channels) for value in (centred, plain))
    to_scale, to_offset = (
        (value if len(scale) == batch else value.sum(0, keepdim=True)).to(scale.dtype)
        for value in to_affine
    )
    return to_scale, to_offset
