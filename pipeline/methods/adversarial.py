"""What methods share in which one network learns to tell two domains apart and another to hide it.

The engine takes one gradient of one loss and updates all networks with it. So each network must
receive the gradient of its own aim alone: by ``reverse_gradient``, or by showing a discriminator
what a generator made twice, detached (it learns) and through ``frozen`` (the generator learns).
So both learn from the same images in the same step, where adversarial networks often take turns.
"""

import math

import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

STEEPNESS = 10.0
"""gamma of the reversal's weight, fixed by Ganin & Lempitsky 2015 (section 4.1)."""


def reverse_gradient(features: Tensor, weight: float) -> Tensor:
    """Return the same features; their gradient comes back as -weight times what it is.

    Source: R_lambda(x) = x, dR/dx = -lambda I, Ganin & Lempitsky 2015, equations 7 and 8.
    """
    seen = features.view_as(features)
    if seen.requires_grad:
        seen.register_hook(lambda gradient: -weight * gradient)  # type: ignore[no-untyped-call]
    return seen


def rising(fraction: float) -> float:
    """Return 2 / (1 + exp(-10 p)) - 1 at a part p of the training: 0 at its start, 1 at its end.

    Source: Ganin & Lempitsky 2015, section 4.1: the classifier has to learn first.
    """
    return 2 / (1 + math.exp(-STEEPNESS * fraction)) - 1


def domain_loss(first: Tensor, second: Tensor) -> Tensor:
    """Return the cross-entropy -(E log s(first) + E log(1 - s(second))) / 2; ln 2 is guessing.

    Args:
        first: logits of the one domain, of any shape.
        second: logits of the other.
    """
    return (F.softplus(-first.float()).mean() + F.softplus(second.float()).mean()) / 2


def fooled(logits: Tensor) -> Tensor:
    """Return -E log s(logits), the generator's aim that what it made is taken for the first domain.

    Source: the non-saturating form, Goodfellow et al. 2014, section 3.
    """
    return F.softplus(-logits.float()).mean()


def frozen(network: nn.Module, images: Tensor) -> Tensor:
    """Return what the network says of images; the gradient reaches these and not its weights."""
    weights = {name: value.detach() for name, value in network.named_parameters()}
    said: Tensor = functional_call(network, weights, (images,))
    return said


def pairwise_squared_error(found: Tensor, expected: Tensor) -> Tensor:
    """Return mean d^2 - (mean d)^2 with d = found - expected of each image, mean over the images.

    It compares differences between pixels, so that a change of all by the same value is free.

    Source: Bousmalis et al. 2016, equation 4, and Bousmalis et al. 2017, section 3.2, both after
    Eigen et al. 2014.
    """
    difference = (found - expected).flatten(1)
    return (difference.square().mean(1) - difference.mean(1).square()).mean()
