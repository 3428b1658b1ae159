"""Settings of the denoiser and its noise schedule."""

from dataclasses import dataclass
from typing import Annotated

from pipeline.config.build import ConfigError, Setting


@dataclass(frozen=True)
class DenoiserSettings:
    """The conditional diffusion U-Net, needed only while training."""

    channels: Annotated[tuple[int, ...], Setting(low=8, high=4096, unit="channels of each level")]
    blocks_per_level: Annotated[int, Setting(low=1, high=8, unit="residual blocks (paper 2)")]
    pixel_unshuffle: Annotated[
        int, Setting(low=1, high=8, unit="factor; 1 works at full resolution")
    ]
    attention_head_channels: Annotated[int, Setting(low=1, high=512, unit="of one head (paper 32)")]
    norm_groups: Annotated[int, Setting(low=1, high=64, unit="of group normalization (paper 32)")]
    dropout: Annotated[float, Setting(low=0, high=0.99, unit="share of values (paper 0.2)")]

    def check(self, key: str, patch: int) -> None:
        """Refuse widths and patches that cannot be divided as the network needs it."""
        if not self.channels:
            raise ConfigError(f"{key}.channels: found an empty list, expected a level")
        for width in self.channels:
            if width % self.norm_groups:
                raise ConfigError(
                    f"{key}.channels: found {width}, expected a multiple of"
                    f" norm_groups = {self.norm_groups}"
                )
        if self.channels[-1] % self.attention_head_channels:
            raise ConfigError(
                f"{key}.attention_head_channels: found {self.attention_head_channels}, expected a"
                f" divisor of the last level's {self.channels[-1]} channels"
            )
        factor = self.pixel_unshuffle * 2 ** (len(self.channels) - 1)
        if patch % factor:
            raise ConfigError(
                f"train.patch: found {patch}, expected a multiple of {factor}"
                f" ({key} halves it on each level)"
            )


@dataclass(frozen=True)
class NoiseSchedule:
    """Betas linear over the diffusion steps; the paper has 1e-6 to 0.01 over 1000."""

    diffusion_steps: Annotated[int, Setting(low=2, high=100_000, unit="T (paper 1000)")]
    beta_first: Annotated[float, Setting(low=0, high=1, unit="noise variance of step 1")]
    beta_last: Annotated[float, Setting(low=0, high=1, unit="noise variance of step T")]
