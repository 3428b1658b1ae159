"""The resolver ``${like_noise_space:KEY}``, by which rows of a comparison follow one method."""

from pathlib import Path
from typing import Any

CONF = Path(__file__).parents[1] / "conf"
NAME = "like_noise_space"


def register() -> None:
    """Let OmegaConf know the resolver."""
    from omegaconf import OmegaConf

    OmegaConf.register_new_resolver(NAME, _like_noise_space, replace=True)


def _like_noise_space(key: str, *, _root_: Any) -> Any:
    """Return a setting as methods.noise_space has it; without that method, as its preset has it."""
    chosen = _root_.methods.get("noise_space")
    return _of_preset(_root_.preset)[key] if chosen is None else chosen[key]


def _of_preset(preset: str) -> Any:
    from omegaconf import OmegaConf

    values: Any = OmegaConf.load(CONF / "noise_space" / f"{preset}.yaml")
    for base in values.pop("defaults", []):
        values = OmegaConf.merge(_of_preset(base), values) if base != "_self_" else values
    return values
