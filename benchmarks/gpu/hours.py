"""What a preset would take on this card, from the measured updates."""

from collections.abc import Iterator
from typing import Any

from benchmarks.gpu.setup import Findings, Row, Setup
from benchmarks.gpu.updates import TITLE

PRESETS = ("one_gpu", "paper")


def composed(overrides: list[str]) -> dict[str, Any]:
    """Return a configuration as plain values; Hydra alone is needed, not DVC."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from pipeline.config.compose import CONF

    with initialize_config_dir(str(CONF), version_base=None):
        values = OmegaConf.to_container(compose("config", overrides), resolve=True)
    assert isinstance(values, dict)
    return {str(name): value for name, value in values.items()}


def measure(setup: Setup, before: Findings) -> Iterator[Row]:
    """Yield GPU hours and hours on the clock: see ``hours``."""
    for preset in PRESETS:
        values = composed([f"preset={preset}"])
        for method in values["methods"]:
            kind = "vanilla" if method == "vanilla" else "noise_space"
            row = _nearest(before.get(TITLE, []), kind, values["train"])
            if row is not None:
                rate = float(row["images/s"])
                yield {"preset": preset, "method": method, "measured at batch": row["batch"],
                       "images/s of a card": rate, **hours(values, rate)}  # fmt: skip


def hours(values: dict[str, Any], rate: float) -> Row:
    """Return updates x images an update / images a second, for all tasks and seeds.

    Divided by the number of cards on the clock; talk between cards, reading and evaluation are not
    in it.
    """
    train = values["train"]
    trainings = len(values["tasks"]) * len(values["seeds"])
    cards = train["devices"] * train["nodes"]
    one = train["steps"] * train["batch"] / rate / 3600
    return {
        "trainings": trainings, "GPU hours of one": one, "GPU hours of all": one * trainings,
        "cards": cards, "hours on the clock of one": one / cards,
    }  # fmt: skip


def _nearest(rows: list[Row], kind: str, train: dict[str, Any]) -> Row | None:
    """Return the row of the preset's precision whose batch is nearest to a share of the preset."""
    share = train["batch"] // (train["devices"] * train["nodes"] * train["accumulate"])
    name = train["precision"] if kind == "noise_space" else f"vanilla, {train['precision']}"
    found = [row for row in rows if row["update"] == name and "images/s" in row]
    return min(found, key=lambda row: abs(int(row["batch"]) - share), default=None)
