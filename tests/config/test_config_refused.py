"""What configuration is refused, and in which words."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dvc.stage.cache import _get_cache_hash
from omegaconf import OmegaConf

from pipeline.config.build import ConfigError
from pipeline.config.compose import compose
from pipeline.config.read import check
from tests.config.test_config import DENOISER, MISSING, OWN_TASKS, SIGMA, changed, told

# What is refused


def leaves(values: Any, key: str = "") -> Iterator[str]:
    """Yield the keys of all values that are no mappings, parted by '/'."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{key}{name}/")
        else:
            yield f"{key}{name}/"[:-1]


def test_every_missing_key_is_named(values: dict[str, Any]) -> None:
    for key in leaves(values):
        message = told(values, key, MISSING)
        assert message.startswith(f"{key.replace('/', '.')}: "), message
        assert "expected" in message


def test_every_value_of_a_wrong_type_is_named(values: dict[str, Any]) -> None:
    for key in leaves(values):
        for wrong in ({"a": 1}, [[]], b"bytes"):
            message = told(values, key, wrong)
            assert message.startswith(key.replace("/", ".")), message
            assert "found" in message or "unknown key" in message


@pytest.mark.parametrize("section", ["train", "tasks", "tasks.denoise.sources", "methods.vanilla"])
@pytest.mark.parametrize("wrong", [None, 3, "text", ["list"]])
def test_every_section_needs_keys(values: dict[str, Any], section: str, wrong: Any) -> None:
    message = told(values, section, wrong)
    assert message.startswith(f"{section}: found ")
    assert "expected keys and values" in message or "expected at least one" in message


@pytest.mark.parametrize(
    ("key", "nearest", "allowed"),
    [
        ("train.leaning_rate", "learning_rate", "batch"),
        ("trian", "train", "evaluate"),
        ("tasks.denoise.protocoll", "protocol", "simulated_real"),
        ("tasks.denoise.synthetic.degradation.sigma", "sigma_255", "kind"),
        ("methods.noise_space.denoiser.norm_group", "norm_groups", "dropout"),
        ("sources.skimage.crops.tests", "test", "real"),
    ],
)
def test_an_unknown_key_is_named_with_the_nearest(
    values: dict[str, Any], key: str, nearest: str, allowed: str
) -> None:
    message = told(values, key, 1)
    assert message.startswith(f"{key}: unknown key, did you mean {nearest!r}?")
    assert allowed in message.partition("allowed here: ")[2].split(", ")


def test_an_unknown_key_like_no_other_has_no_suggestion(values: dict[str, Any]) -> None:
    assert told(values, "train.xyzzy", 1).startswith("train.xyzzy: unknown key; allowed here: ")


@pytest.mark.parametrize(
    ("key", "value", "found", "expected"),
    [
        ("train.learning_rate", "1e-4", "'1e-4' (str)", "a number from 0 to 1"),
        ("train.learning_rate", True, "True (bool)", "a number"),
        ("train.learning_rate", None, "None (NoneType)", "a number"),
        ("train.batch", 8.0, "8.0 (float)", "a whole number from 1 to 65536"),
        ("train.batch", True, "True (bool)", "a whole number"),
        ("train.batch", "8", "'8' (str)", "a whole number"),
        ("methods.noise_space.channel_shuffling", 1, "1 (int)", "true or false"),
        ("methods.noise_space.channel_shuffling", "yes", "'yes' (str)", "true or false"),
        ("preset", 1, "1 (int)", "a text"),
        ("tasks.denoise.image_range", 0, "0 (int)", "a list"),
        ("seeds", ["0"], "'0' (str)", "a whole number from 0 to 4294967295"),
        (f"{DENOISER}.channels", 32, "32 (int)", "a list"),
    ],
)
def test_a_wrong_type_is_told(
    values: dict[str, Any], key: str, value: Any, found: str, expected: str
) -> None:
    message = told(values, key, value)
    assert message.startswith(key)
    assert f"found {found}, expected {expected}" in message


@pytest.mark.parametrize(
    ("key", "value", "found", "expected"),
    [
        ("train.learning_rate", -0.001, "-0.001", "from 0 to 1"),
        ("train.learning_rate", 1.001, "1.001", "from 0 to 1"),
        ("train.learning_rate", math.nan, "nan", "from 0 to 1"),
        ("train.learning_rate", math.inf, "inf", "from 0 to 1"),
        ("train.steps", 0, "0", "of at least 1"),
        ("train.workers", -1, "-1", "from 0 to 256"),
        ("seeds", [0, -1], "-1", "from 0 to 4294967295"),
        (SIGMA, [0, 256], "256.0", "from 0 to 255"),
        (SIGMA, [math.nan, 1], "nan", "from 0 to 255"),
        ("restorer.levels", 1, "1", "from 2 to 6"),
        ("sources.skimage.crops.test.side", 7, "7", "of at least 8 (pixels)"),
        (f"{DENOISER}.channels", [32, 4], "4", "from 8 to 4096"),
    ],
)
def test_out_of_range_is_told(
    values: dict[str, Any], key: str, value: Any, found: str, expected: str
) -> None:
    message = told(values, key, value)
    assert message.startswith(key)
    assert f"found {found}, expected a number {expected}" in message


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("train.learning_rate", 0),
        ("train.learning_rate", 1),
        ("train.batch", 1),
        ("train.batch", 4096),
        (SIGMA, [0, 255]),
        (SIGMA, [25, 25]),
        ("methods.noise_space.diffusion_step_range", [1, 999]),
        ("sources.skimage.crops.test", None),
        ("tasks.denoise.simulated_real", None),
        ("train.adam_betas", [0.9, 0.5]),
    ],
)
def test_the_ends_of_a_range_are_allowed(values: dict[str, Any], key: str, value: Any) -> None:
    check(changed(values, key, value))


def test_a_whole_number_is_a_number(values: dict[str, Any]) -> None:
    params = check(changed(values, "methods.noise_space.weight", 2))
    weight = params.methods["noise_space"].weight
    assert weight == 2 and type(weight) is float


@pytest.mark.parametrize("value", [[75, 0], [1, 2, 3], [1], [], 25, {"low": 0, "high": 75}])
def test_an_interval_is_lowest_then_highest(values: dict[str, Any], value: Any) -> None:
    message = told(values, SIGMA, value)
    assert message.startswith(f"{SIGMA}: found {value!r}")
    assert "expected [lowest, highest]" in message or "expected a list" in message


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("tasks.denoise.protocol", "side", "expected one of sidd, y, rgb, did you mean 'sidd'?"),
        ("tasks.denoise.protocol", True, "expected one of sidd, y, rgb"),
        ("tasks.denoise.protocol", ["y"], "expected one of sidd, y, rgb"),
        ("train.precision", "fp23", "expected one of auto, fp32, tf32, bf16, did you mean 'fp32'?"),
    ],
)
def test_a_choice_is_told_with_the_nearest(
    values: dict[str, Any], key: str, value: Any, expected: str
) -> None:
    assert told(values, key, value) == f"{key}: found {value!r}, {expected}"


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("methods.vanilla.kind", "nose_space", "vanilla, noise_space"),
        ("sources.skimage.kind", "bundle", "bundled, folder"),
        ("tasks.denoise.synthetic.degradation.kind", "gausian_noise", "gaussian_noise"),
        ("methods.vanilla.kind", None, "vanilla, noise_space"),
        ("methods.vanilla.kind", ["vanilla"], "vanilla, noise_space"),
        ("sources.skimage.kind", {"bundled": None}, "bundled, folder"),
    ],
)
def test_an_unknown_kind_is_told(
    values: dict[str, Any], key: str, value: Any, expected: str
) -> None:
    message = told(values, key, value)
    assert message.startswith(f"{key}: found {value!r}, expected one of ")
    assert expected in message
    assert "did you mean" in message or not isinstance(value, str)


def test_the_keys_are_those_of_the_chosen_kind(values: dict[str, Any]) -> None:
    message = told(values, "tasks.denoise.synthetic.degradation.kind", "camera")
    assert message.startswith("tasks.denoise.synthetic.degradation.sigma_255: unknown key")


@pytest.mark.parametrize("section", ["tasks", "methods", "sources", "seeds"])
def test_at_least_one_is_needed(values: dict[str, Any], section: str) -> None:
    empty: Any = [] if section == "seeds" else {}
    message = told(values, section, empty)
    assert message.startswith(f"{section}: found nothing, expected at least one")


@pytest.mark.parametrize("section", ["tasks", "methods", "sources"])
@pytest.mark.parametrize("name", ["de-noise", "a/b", "a@b", "a b", "", 1])
def test_names_are_fit_for_paths(values: dict[str, Any], section: str, name: Any) -> None:
    values[section][name] = next(iter(values[section].values()))
    with pytest.raises(ConfigError, match=f"^{section}.{name}: .*expected letters, digits"):
        check(values)


@pytest.mark.parametrize("name", ["de_noise", "x2.5", "A1"])
def test_fit_names_are_allowed(values: dict[str, Any], name: str) -> None:
    values["tasks"][name] = values["tasks"]["denoise"]
    assert name in check(values).tasks


@pytest.mark.parametrize("section", ["tasks", "methods", "sources", "train", "tasks.denoise"])
@pytest.mark.parametrize("name", ["size", "nfiles"])
def test_no_name_is_one_that_dvc_does_not_see(
    values: dict[str, Any], section: str, name: str
) -> None:
    message = told(values, f"{section}.{name}", 1)
    assert message.startswith(f"{section}.{name}: found {name!r} as a name")


@pytest.mark.parametrize("name", ["size", "nfiles"])
def test_dvc_still_does_not_see_them(name: str) -> None:
    """When this fails, DVC is mended and ``INVISIBLE`` can go."""
    signatures = {_get_cache_hash({"params": {"a": {name: value}}}) for value in (1, 2)}
    assert len(signatures) == 1


@pytest.mark.parametrize("name", ["a/b", ""])
def test_names_of_test_sets_are_fit_for_paths(tmp_path: Path, name: str) -> None:
    overrides = ["sources=[folder]", f"tasks=[{OWN_TASKS[0]}]"]
    compose(overrides, tmp_path / "params.yaml")
    values = OmegaConf.to_container(OmegaConf.load(tmp_path / "params.yaml"))
    values["sources"]["folder"]["test"] = {name: {"degraded": "noisy", "clean": "truth"}}
    with pytest.raises(ConfigError, match=r"^sources\.folder\.test"):
        check(values)


# What must go together


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("seeds", [0, 1, 0], ["seeds: found [0, 1, 0]", "each seed once"]),
        ("tasks.derain.sources.real", "spa", ["tasks.derain.sources.real: found 'spa'", "skimage"]),
        ("train.patch", 60, ["train.patch: found 60", "a multiple of 8"]),
        ("restorer.levels", 6, ["train.patch: found 48", "a multiple of 32"]),
        (f"{DENOISER}.channels", [32, 40, 64], [f"{DENOISER}.channels: found 40", "= 16"]),
        (f"{DENOISER}.channels", [], [f"{DENOISER}.channels: found an empty list"]),
        (f"{DENOISER}.attention_head_channels", 48, ["found 48", "128 channels"]),
        (f"{DENOISER}.pixel_unshuffle", 5, ["train.patch: found 48", "a multiple of 20"]),
        ("train.pretrain_steps", 800, ["train.pretrain_steps: found 800", "train.steps = 800"]),
        ("train.pretrain_steps", 900, ["train.pretrain_steps: found 900", "train.steps = 800"]),
        ("evaluate.tile_overlap", 257, ["evaluate.tile_overlap: found 257", "evaluate.tile = 512"]),
        ("methods.noise_space.diffusion_step_range", [9, 8], ["found [9, 8]", "1 to 999"]),
        ("methods.noise_space.diffusion_step_range", [1, 1000], ["found [1, 1000]", "1 to 999"]),
        ("methods.noise_space.schedule.beta_first", 0.5, ["schedule.beta_first", "beta_last"]),
        ("train.adam_betas", [0.9, 1], ["train.adam_betas"]),
        ("train.accumulate", 3, ["train.batch: found 8", "1 nodes x 1 devices x 3 shares"]),
        ("train.devices", 16, ["train.batch: found 8", "a multiple of 16"]),
        ("resources.gpu", 2, ["resources.gpu: found 2, expected 0", "or train.devices = 1"]),
        ("tasks.denoise.image_range", [0, 0], ["tasks.denoise.image_range", "[-1, 1]"]),
        ("tasks.denoise.sources.unpaired", "coco", ["sources.unpaired: found 'coco'", "skimage"]),
        ("tasks.denoise.synthetic.degradation", None, ["synthetic.degradation: found null"]),
        (
            "methods.vanilla",
            {"kind": "released", "weights": {}},
            [
                "methods.vanilla.weights.denoise: missing",
                "{file:PATH,sha256:HASH,image_range:[0,1]}",
            ],
        ),
        (
            "methods.vanilla",
            {
                "kind": "released",
                "weights": {"denoise": {"file": "a.pth", "sha256": "0", "image_range": [1, 1]}},
            },
            ["methods.vanilla.weights.denoise.image_range: found [1", "black below white"],
        ),
        ("methods.noise_space.conditions", "real", ["found real", "residual_swapping=false"]),
        ("methods.noise_space.target", "unpaired", ["found unpaired", "residual_swapping=false"]),
    ],
)
def test_what_must_go_together(
    values: dict[str, Any], key: str, value: Any, words: list[str]
) -> None:
    # the words hold for these, whatever the demo's settings are
    values["train"] |= {"steps": 800, "pretrain_steps": 600, "patch": 48, "batch": 8}
    values["evaluate"] |= {"tile": 512, "tile_overlap": 64}
    values["restorer"]["levels"] = 4
    values["methods"]["noise_space"]["schedule"]["diffusion_steps"] = 1000
    values["methods"]["noise_space"]["denoiser"] |= {
        "channels": [32, 64, 128],
        "pixel_unshuffle": 2,
        "attention_head_channels": 32,
        "norm_groups": 16,
    }
    check(values)
    message = told(values, key, value)
    assert all(word in message for word in words), message


def test_copies_without_effect_are_refused(values: dict[str, Any]) -> None:
    values["tasks"]["denoise"]["synthetic"]["copies"] = 3
    with pytest.raises(
        ConfigError, match=r"tasks\.denoise\.synthetic\.copies: found 3, expected 1"
    ):
        check(values)
