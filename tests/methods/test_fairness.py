"""Methods are compared on equal terms: docs/extending.md says which, and which are not equal."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.config.compose import compose
from pipeline.config.methods import TargetSupervisedSettings, TrainedMethod
from pipeline.config.params import Params
from pipeline.config.read import read_params
from pipeline.datasets.batches import Batch
from pipeline.methods.method import build_method
from pipeline.models.restorers.unet import UNet
from pipeline.runtime.paths import STATE_FILE
from pipeline.training.loop import train
from pipeline.training.state import TrainingState
from tests.helpers.training_job import (
    BASELINES,
    NOISE_SPACE,
    PRETRAIN_STEPS,
    STEPS,
    VANILLA,
    job,
    write_images,
)

PAGE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()
METHODS: dict[str, TrainedMethod] = {"noise_space": NOISE_SPACE, **BASELINES}
FROM_REAL_IMAGES_ALONE = {
    name for name, method in METHODS.items() if getattr(method, "real_alone", False)
}
SECTION = PAGE.partition("### What is alike")[2].partition("### Where it is named")[0]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images and a shared pretraining."""
    folder = tmp_path_factory.mktemp("fair")
    write_images(folder / "images")
    train(job(folder / "images", folder, VANILLA, last_step=PRETRAIN_STEPS, keeps="state"))
    return folder


def seen_by(method: TrainedMethod, place: Path, folder: Path, monkeypatch: Any) -> dict[str, Any]:
    """Train; return first weights, rates of the restorer and the images of every step."""
    seen: dict[str, Any] = {"images": [], "rates": []}
    move, load_restorer = Batch.to, TrainingState.load_restorer

    def to(batch: Batch, *given: Any) -> Batch:
        seen["images"].append(
            [value.clone() for value in (batch.synthetic, batch.clean, batch.real)]
        )
        return move(batch, *given)

    def load(state: TrainingState, path: Path) -> None:
        load_restorer(state, path)
        weights = state.method.restorer.state_dict()  # type: ignore[operator]
        seen["weights"] = {name: value.clone() for name, value in weights.items()}
        optimizer = state.optimizers["restorer"]
        step = optimizer.step

        def stepped(*given: Any, **more: Any) -> Any:
            group = optimizer.param_groups[0]
            seen["rates"].append((group["lr"], group["betas"]))
            return step(*given, **more)

        monkeypatch.setattr(optimizer, "step", stepped)

    with monkeypatch.context() as patched:
        patched.setattr(Batch, "to", to)
        patched.setattr(TrainingState, "load_restorer", load)
        train(job(place / "images", folder, method, start_from=place / STATE_FILE))
    return seen


def test_every_method_begins_alike_and_sees_the_same(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = seen_by(VANILLA, place, tmp_path / "vanilla", monkeypatch)
    # and a batch more, of which is measured at the end
    assert len(expected["images"]) - 1 == len(expected["rates"]) == STEPS - PRETRAIN_STEPS
    assert len({rate for rate, _ in expected["rates"]}) > 1, "it falls"
    for name, method in METHODS.items():
        found = seen_by(method, place, tmp_path / name, monkeypatch)
        assert found["rates"] == expected["rates"], name
        torch.testing.assert_close(found["weights"], expected["weights"], rtol=0, atol=0)
        torch.testing.assert_close(found["images"], expected["images"], rtol=0, atol=0)


def test_who_wants_the_truth_is_a_bound() -> None:
    for name, method in METHODS.items():
        wants = build_method(UNet(levels=2, channels=4), method).wants
        assert ("truth" in wants) == method.is_bound, name
    assert TargetSupervisedSettings.is_bound


def composed(folder: Path, preset: str) -> Params:
    methods = ",".join(["vanilla", *METHODS])
    overrides = [f"preset={preset}", f"methods=[{methods}]"]
    compose(overrides, folder / "params.yaml")
    return read_params(folder / "params.yaml")


@pytest.mark.parametrize(("preset", "factor"), [("demo", 2), ("paper", 1)])
def test_what_differs_is_what_the_page_says(preset: str, factor: float, tmp_path: Path) -> None:
    params = composed(tmp_path, preset)
    starts = {name: method.start for name, method in params.methods.items()}
    assert {name for name, start in starts.items() if start == "scratch"} == FROM_REAL_IMAGES_ALONE
    rates = {
        name: value
        for name, method in params.methods.items()
        for key, value in vars(method).items()
        if key.endswith("learning_rate_factor")
    }
    assert len(rates) > 1 and set(rates.values()) == {factor}, f"not alike: {rates}"
    momenta = {name: vars(method).get("momentum") for name, method in params.methods.items()}
    other = {name: value for name, value in momenta.items() if value is not None}
    assert set(other.values()) == {0.5}
    for name in (*other, *FROM_REAL_IMAGES_ALONE):
        assert f"`{name}`" in SECTION, f"docs/extending.md does not name {name} as not alike"
    if preset == "demo":
        assert f"they learn {factor} times as fast" in " ".join(SECTION.split())
        train = params.train
        assert f"({train.steps:,} in the demo)" in SECTION
        assert f"after pretraining ({train.steps - train.pretrain_steps})" in SECTION
