"""Settings of the baselines; each method's file in ``pipeline/methods`` has the equations.

What is true of a method whatever its values stands in its class too, where it is not as usual:

* ``compiles = False``: it reads or freezes parts of networks, which compiled ones hide;
* ``patch_factor(restorer_factor)``: what ``train.patch`` must be a multiple of;
* ``is_bound = True``: given the truth of real photographs, so no competitor;
* ``real_alone = True``: no synthetic pair takes part in its loss;
* ``assumes``: of the degradation, said below every table of scores.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pipeline.config.checks import Setting

Start = Literal["pretrained", "scratch"]
Weight = Annotated[float, Setting(low=0, high=1000, unit="factor of a loss")]
Channels = Annotated[int, Setting(low=1, high=4096, unit="width of the extra networks")]
Blocks = Annotated[int, Setting(low=1, high=64, unit="residual blocks of a generator")]
Momentum = Annotated[float, Setting(low=0, high=0.999, unit="beta1 of the extra networks' Adam")]
RateFactor = Annotated[float, Setting(low=0, high=1000, unit="of the restorer's learning rate")]


@dataclass(frozen=True)
class Dann:
    """Features that do not tell the domain; ``weight`` is the largest lambda of the reversal."""

    kind: Literal["dann"]
    start: Start
    weight: Weight
    channels: Channels
    learning_rate_factor: RateFactor
    compiles: ClassVar[bool] = False


@dataclass(frozen=True)
class Dsn:
    """Shared and private features; the paper's alpha, beta and gamma in this order."""

    kind: Literal["dsn"]
    start: Start
    reconstruction_weight: Weight
    difference_weight: Weight
    similarity_weight: Weight
    channels: Channels
    learning_rate_factor: RateFactor
    compiles: ClassVar[bool] = False


@dataclass(frozen=True)
class PixelDa:
    """A generator makes synthetic images look real."""

    kind: Literal["pixel_da"]
    start: Start
    adversarial_weight: Weight
    content_weight: Weight
    identity_weight: Weight
    channels: Channels
    blocks: Blocks
    learning_rate_factor: RateFactor
    momentum: Momentum
    compiles: ClassVar[bool] = False

    def patch_factor(self, restorer_factor: int) -> int:
        """The generator halves images once."""
        return 2


@dataclass(frozen=True)
class CyCada:
    """Two generators that undo each other, and aligned features."""

    kind: Literal["cycada"]
    start: Start
    adversarial_weight: Weight
    cycle_weight: Weight
    identity_weight: Weight
    feature_weight: Weight
    channels: Channels
    blocks: Blocks
    learning_rate_factor: RateFactor
    momentum: Momentum
    compiles: ClassVar[bool] = False

    def patch_factor(self, restorer_factor: int) -> int:
        """The generators halve images once."""
        return 2


@dataclass(frozen=True)
class Neighbor2Neighbor:
    """Self-supervised denoising of the real images alone; ``weight`` is of the regularization."""

    kind: Literal["neighbor2neighbor"]
    start: Start
    weight: Weight
    real_alone: ClassVar[bool] = True
    assumes: ClassVar[str] = (
        "noise of mean 0 that is independent from pixel to pixel; noise that a camera has smoothed"
        " is not, and rain and blur are no such noise"
    )

    def patch_factor(self, restorer_factor: int) -> int:
        """The restorer is given images of half the size."""
        return 2 * restorer_factor


@dataclass(frozen=True)
class ApBsn:
    """Self-supervised denoising of the real images alone, with a blind spot."""

    kind: Literal["ap_bsn"]
    start: Start
    stride: Annotated[int, Setting(low=1, high=64, unit="pixels between those left together")]
    real_alone: ClassVar[bool] = True
    assumes: ClassVar[str] = (
        "noise that is independent between pixels its stride apart; rain and blur are not"
    )

    def patch_factor(self, restorer_factor: int) -> int:
        """The restorer is given images of every so many pixels."""
        return self.stride * restorer_factor


@dataclass(frozen=True)
class TargetSupervised:
    """Trained on real pairs, where real training photographs have a truth: an upper bound there."""

    kind: Literal["target_supervised"]
    start: Start
    is_bound: ClassVar[bool] = True


Baseline = Dann | Dsn | PixelDa | CyCada | Neighbor2Neighbor | ApBsn | TargetSupervised
"""All of them; a new one is named here."""
