"""Settings of the restorers: one dataclass each, told apart by ``name``.

``factor`` is what both sides of an image must be multiples of; images are padded to it and cut
back. The module of the same name in ``pipeline/models`` builds the network.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from pipeline.config.build import ConfigError, Setting

Channels = Annotated[int, Setting(low=1, high=512, unit="channels of the first level")]
Blocks = Annotated[tuple[int, ...], Setting(low=1, high=64, unit="blocks of each level")]
Heads = Annotated[tuple[int, ...], Setting(low=1, high=64, unit="attention heads of each level")]


@dataclass(frozen=True)
class UNetSettings:
    """The paper's plain U-Net: 4 levels and 64 base channels there."""

    kind: Literal["unet"]
    levels: Annotated[int, Setting(low=2, high=6)]
    channels: Channels

    @property
    def factor(self) -> int:
        """Every level but the first halves the image."""
        return 1 << (self.levels - 1)


@dataclass(frozen=True)
class DnCNNSettings:
    """Plain convolutions at full resolution: 20 layers of 64 channels for colour images."""

    kind: Literal["dncnn"]
    layers: Annotated[int, Setting(low=3, high=64)]
    channels: Channels

    @property
    def factor(self) -> int:
        """Any size will do."""
        return 1


@dataclass(frozen=True)
class NAFNetSettings:
    """U-Net without activation functions; every level doubles the channels."""

    kind: Literal["nafnet"]
    channels: Channels
    encoder_blocks: Blocks
    middle_blocks: Annotated[int, Setting(low=1, high=64)]
    decoder_blocks: Blocks

    def __post_init__(self) -> None:
        _require_levels("decoder_blocks", self.decoder_blocks, len(self.encoder_blocks))

    @property
    def factor(self) -> int:
        """Every level of the encoder halves the image."""
        return 1 << len(self.encoder_blocks)


@dataclass(frozen=True)
class SwinIRSettings:
    """Groups of Swin transformer blocks at full resolution."""

    kind: Literal["swinir"]
    channels: Channels
    blocks: Blocks
    heads: Heads
    window: Annotated[int, Setting(low=2, high=32, unit="pixels")]
    mlp_ratio: Annotated[float, Setting(low=1, high=8)]

    def __post_init__(self) -> None:
        _require_levels("heads", self.heads, len(self.blocks))
        for heads in self.heads:
            _require_division(self.channels, heads)

    @property
    def factor(self) -> int:
        """Images are cut into whole windows."""
        return self.window


@dataclass(frozen=True)
class UformerSettings:
    """U-Net of windowed transformer blocks: four levels down, a bottleneck, four up."""

    kind: Literal["uformer"]
    channels: Channels
    blocks: Blocks
    window: Annotated[int, Setting(low=2, high=32, unit="pixels")]

    def __post_init__(self) -> None:
        _require_levels("blocks", self.blocks, 9)

    @property
    def factor(self) -> int:
        """The bottleneck, a sixteenth of the image, is cut into whole windows."""
        return 16 * self.window


@dataclass(frozen=True)
class RestormerSettings:
    """U-Net of transformer blocks that attend across channels."""

    kind: Literal["restormer"]
    channels: Channels
    blocks: Blocks
    heads: Heads
    refinement_blocks: Annotated[int, Setting(low=1, high=64)]
    expansion: Annotated[float, Setting(low=1, high=8, unit="widening inside a block")]

    def __post_init__(self) -> None:
        _require_levels("blocks", self.blocks, 4)
        _require_levels("heads", self.heads, 4)
        for level, heads in enumerate(self.heads):
            _require_division(self.channels * 2**level, heads)

    @property
    def factor(self) -> int:
        """Three levels halve the image."""
        return 8


RestorerSettings = (
    UNetSettings
    | DnCNNSettings
    | NAFNetSettings
    | SwinIRSettings
    | UformerSettings
    | RestormerSettings
)


def _require_levels(name: str, values: tuple[int, ...], levels: int) -> None:
    if len(values) != levels:
        raise ConfigError(f"restorer.{name}: found {len(values)} values, expected {levels}")


def _require_division(channels: int, heads: int) -> None:
    if channels % heads:
        raise ConfigError(
            f"restorer.heads: found {heads}, expected a number that divides {channels} channels"
        )
