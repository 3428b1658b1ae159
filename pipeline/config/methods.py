"""Settings of all methods; each method's file in ``pipeline/methods`` has the equations."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pipeline.config.build import ConfigError, Setting
from pipeline.config.denoiser import DenoiserSettings, NoiseSchedule

Start = Literal["pretrained", "scratch"]
Weight = Annotated[float, Setting(low=0, high=1000, unit="factor of a loss")]
Channels = Annotated[int, Setting(low=1, high=4096, unit="width of the extra networks")]
Blocks = Annotated[int, Setting(low=1, high=64, unit="residual blocks of a generator")]
Momentum = Annotated[float, Setting(low=0, high=0.999, unit="beta1 of the extra networks' Adam")]
RateFactor = Annotated[float, Setting(low=0, high=1000, unit="of the restorer's learning rate")]


@dataclass(frozen=True)
class TrainedMethod:
    """What all trained methods share; a class names what is not as usual of it.

    ``start``: from the restorer that was pretrained on synthetic pairs, or from first weights.
    """

    kind: str
    start: Start

    compiles: ClassVar[bool] = True
    """False: it reads or freezes parts of networks, which compiled ones hide."""
    is_bound: ClassVar[bool] = False
    """True: it is given the truth of real photographs, so it is no competitor."""
    real_alone: ClassVar[bool] = False
    """True: no synthetic pair takes part in its loss."""
    assumes: ClassVar[str] = ""
    """What it assumes of the degradation; stands below every table of scores."""
    manner: ClassVar[str] = ""
    """The published method that it resembles without being it."""
    manner_note: ClassVar[str] = ""
    """In what it differs from that method."""
    tuned_on: ClassVar[Mapping[str, str]] = {}
    """On which photographs its values were chosen, by preset."""

    def patch_factor(self, restorer_factor: int) -> int:
        """Return what ``train.patch`` must be a multiple of besides the restorer's own factor."""
        return 1

    def check(self, key: str, patch: int) -> None:
        """Refuse values that do not go together.

        Args:
            key: the dotted name of these settings.
            patch: ``train.patch``.

        Raises:
            ConfigError: names the key.
        """


@dataclass(frozen=True)
class VanillaSettings(TrainedMethod):
    """Training on synthetic pairs alone."""

    kind: Literal["vanilla"]


@dataclass(frozen=True)
class NoiseSpaceSettings(TrainedMethod):
    """The paper's method; see ``pipeline/methods/noise_space.py`` for the equations.

    ``target``: the clean image that is noised, the synthetic pair's own or, in the paper's unpaired
    extension, one of another collection (``tasks.<task>.sources.unpaired``). ``conditions``: which
    restored images the denoiser is given.
    """

    kind: Literal["noise_space"]
    weight: Annotated[
        float, Setting(low=0, high=1000, unit="factor of the diffusion loss (paper 0.2)")
    ]
    ramp: Annotated[
        int, Setting(low=1, unit="ramp_units over which the weight rises (paper 300 epochs)")
    ]
    ramp_unit: Literal["steps", "epochs"]
    margin: Annotated[float, Setting(low=0, high=10, unit="of the contrastive term (paper 0.1)")]
    channel_shuffling: bool
    residual_swapping: bool
    target: Literal["paired", "unpaired"]
    conditions: Literal["both", "synthetic", "real"]
    diffusion_step_range: Annotated[
        tuple[int, int], Setting(low=1, unit="first and last step drawn")
    ]
    denoiser_learning_rate_factor: Annotated[
        float, Setting(low=0, high=1000, unit="of the restorer's learning rate")
    ]
    schedule: NoiseSchedule
    denoiser: DenoiserSettings
    tuned_on: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("demo", "tiny"),
        "weight and ramp of this preset were chosen on the truth of real training scenes, with"
        " scores of test images in sight",
    )

    def check(self, key: str, patch: int) -> None:
        """Refuse steps outside the schedule, swapping without both conditions, other sizes."""
        first, last = self.diffusion_step_range
        limit = self.schedule.diffusion_steps - 1
        if not 1 <= first <= last <= limit:
            raise ConfigError(
                f"{key}.diffusion_step_range: found [{first}, {last}],"
                f" expected first <= last within 1 to {limit}"
            )
        if self.schedule.beta_first > self.schedule.beta_last:
            raise ConfigError(f"{key}.schedule.beta_first: expected at most beta_last")
        for name, found, usual in (
            ("conditions", self.conditions, "both"),
            ("target", self.target, "paired"),
        ):
            if self.residual_swapping and found != usual:
                raise ConfigError(
                    f"{key}.{name}: found {found} beside residual_swapping: true, expected {usual}"
                    f" (the paper has no negatives there: {key}.residual_swapping=false, or the"
                    " methods only_synthetic, only_real and unpaired, which say so)"
                )
        self.denoiser.check(f"{key}.denoiser", patch)


@dataclass(frozen=True)
class DannSettings(TrainedMethod):
    """Features that do not tell the domain; ``weight`` is the largest lambda of the reversal."""

    kind: Literal["dann"]
    weight: Weight
    channels: Channels
    learning_rate_factor: RateFactor
    compiles: ClassVar[bool] = False


@dataclass(frozen=True)
class DsnSettings(TrainedMethod):
    """Shared and private features; the paper's alpha, beta and gamma in this order."""

    kind: Literal["dsn"]
    reconstruction_weight: Weight
    difference_weight: Weight
    similarity_weight: Weight
    channels: Channels
    learning_rate_factor: RateFactor
    compiles: ClassVar[bool] = False


@dataclass(frozen=True)
class PixelDaSettings(TrainedMethod):
    """A generator makes synthetic images look real."""

    kind: Literal["pixel_da"]
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
class CyCadaSettings(TrainedMethod):
    """Two generators that undo each other, and aligned features."""

    kind: Literal["cycada"]
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
class Neighbor2NeighborSettings(TrainedMethod):
    """Self-supervised denoising of the real images alone; ``weight`` is of the regularization."""

    kind: Literal["neighbor2neighbor"]
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
class ApBsnSettings(TrainedMethod):
    """Self-supervised denoising of the real images alone, with a blind spot."""

    kind: Literal["ap_bsn"]
    stride: Annotated[int, Setting(low=1, high=64, unit="pixels between those left together")]
    manner: ClassVar[str] = "AP-BSN"
    manner_note: ClassVar[str] = (
        "not its network: the same restorer as of the other methods is made blind to a few pixels,"
        " and restores in one pass"
    )
    real_alone: ClassVar[bool] = True
    assumes: ClassVar[str] = (
        "noise that is independent between pixels its stride apart; rain and blur are not"
    )

    def patch_factor(self, restorer_factor: int) -> int:
        """The restorer is given images of every so many pixels."""
        return self.stride * restorer_factor


@dataclass(frozen=True)
class TargetSupervisedSettings(TrainedMethod):
    """Trained on real pairs, where real training photographs have a truth: an upper bound there."""

    kind: Literal["target_supervised"]
    is_bound: ClassVar[bool] = True


@dataclass(frozen=True)
class ReleasedWeights:
    """A weight file (.pth) of the authors' release, on this machine.

    ``image_range``: black and white as it was trained with them, [0, 1] for the release's
    denoising, [-1, 1] for its deraining and deblurring.
    """

    file: str
    sha256: str
    image_range: Annotated[tuple[float, float], Setting(low=-1, high=1)]


@dataclass(frozen=True)
class ReleasedSettings:
    """Nothing is trained: the authors' released weights are evaluated, one file a task."""

    kind: Literal["released"]
    weights: dict[str, ReleasedWeights]
    of_method: ClassVar[str] = "noise_space"
    """Our name of the method that they were trained with."""


MethodSettings = (
    VanillaSettings
    | NoiseSpaceSettings
    | DannSettings
    | DsnSettings
    | PixelDaSettings
    | CyCadaSettings
    | Neighbor2NeighborSettings
    | ApBsnSettings
    | TargetSupervisedSettings
    | ReleasedSettings
)
"""All of them; a new one is named here."""
