"""The configuration: what is composed, what is refused and how that is told."""

import copy
import dataclasses
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest

from pipeline.config.build import ConfigError, tagged
from pipeline.config.compose import CONF, compose
from pipeline.config.methods import MethodSettings
from pipeline.config.params import Params
from pipeline.config.read import check, read_params
from pipeline.config.sources import FetchedSource
from pipeline.images.tiles import starts
from pipeline.runtime.errors import UserError

ROOT = Path(__file__).parents[2]
PRESETS = sorted(path.stem for path in (CONF / "preset").glob("*.yaml"))
OWN_TASKS = sorted(path.stem for path in (CONF / "tasks").glob("own_*.yaml"))
MISSING = object()

SIGMA = "tasks.denoise.synthetic.degradation.sigma_255"
DENOISER = "methods.noise_space.denoiser"


def changed(values: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Return the values with the one at a key, parted by '.' or, where names hold dots, by '/'."""
    changed = copy.deepcopy(values)
    *parents, last = split(key)
    place: Any = changed
    for name in parents:
        place = place[name]
    if value is MISSING:
        del place[last]
    else:
        place[last] = value
    return changed


def split(key: str) -> list[str]:
    return key.split("/" if "/" in key else ".")


def told(values: dict[str, Any], key: str, value: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        check(changed(values, key, value))
    message = str(caught.value)
    assert "\n" not in message
    return message


# What is composed


def test_there_are_presets() -> None:
    assert {"demo", "tiny"} <= set(PRESETS)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_compose(preset: str, tmp_path: Path) -> None:
    compose([f"preset={preset}"], tmp_path / "params.yaml")
    assert read_params(tmp_path / "params.yaml").preset == preset


def test_params_file_is_the_composition_without_overrides(tmp_path: Path) -> None:
    compose([], tmp_path / "params.yaml")
    composed = (tmp_path / "params.yaml").read_bytes()
    assert (ROOT / "params.yaml").read_bytes() == composed, "run 'python -m pipeline compose'"


def composed(tmp_path: Path, *overrides: str) -> Params:
    compose(list(overrides), tmp_path / "params.yaml")
    return read_params(tmp_path / "params.yaml")


def test_the_paper_preset_holds_the_released_configuration(tmp_path: Path) -> None:
    """Values of the authors' options_train.json, one for each task, and of the paper's text."""
    params = composed(tmp_path, "preset=paper")
    train, method = params.train, params.methods["noise_space"]
    # -b 24 of train.sh is of every GPU, and it starts eight
    assert (train.batch, train.devices, train.accumulate) == (8 * 24, 8, 1)
    assert train.patch == 128
    assert train.adam_betas == (0.9, 0.999)
    assert (train.average_decay, train.pretrain_steps, train.precision) == (0.9999, 0, "tf32")
    assert train.learning_rate_decay == "none" and train.clip_norm is None
    assert train.initialization == "kaiming"
    rates = {n: train.learning_rate * t.learning_rate_factor for n, t in params.tasks.items()}
    assert rates == {"denoise": 1e-4, "derain": 5e-5, "deblur": 5e-5}
    ranges = {name: task.image_range for name, task in params.tasks.items()}
    assert ranges == {"denoise": (0, 1), "derain": (-1, 1), "deblur": (-1, 1)}
    assert params.tasks["denoise"].synthetic.degradation.sigma_255 == (0, 75)
    assert params.tasks["denoise"].synthetic.draw == "anew"
    protocols = {name: task.protocol for name, task in params.tasks.items()}
    assert protocols == {"denoise": "sidd", "derain": "y", "deblur": "rgb"}
    assert dataclasses.asdict(params.restorer) == {"kind": "unet", "levels": 4, "channels": 64}
    assert dataclasses.asdict(method) == {
        "kind": "noise_space",
        "start": "pretrained",  # after 0 steps: from scratch
        "weight": 0.2,
        "ramp": 300,
        "ramp_unit": "epochs",
        "margin": 0.1,
        "channel_shuffling": True,
        "residual_swapping": True,
        "target": "paired",
        "conditions": "both",
        "diffusion_step_range": (1, 999),
        "denoiser_learning_rate_factor": 1.0,
        "schedule": {"diffusion_steps": 1000, "beta_first": 1e-6, "beta_last": 0.01},
        "denoiser": {
            "channels": (64, 128, 256, 512),
            "blocks_per_level": 2,
            "pixel_unshuffle": 1,
            "attention_head_channels": 32,
            "norm_groups": 32,
            "dropout": 0.2,
        },
    }


def test_one_gpu_sees_the_same_images(tmp_path: Path) -> None:
    paper, one = (composed(tmp_path, f"preset={name}") for name in ("paper", "one_gpu"))
    changed = {"accumulate": 32, "devices": 1, "precision": "bf16", "clip_norm": 1}
    assert one.train == dataclasses.replace(paper.train, **changed)
    assert one.train.batch / one.train.accumulate == 6, "what a card of 24 GB holds"
    assert (one.tasks, one.methods, one.restorer) == (paper.tasks, paper.methods, paper.restorer)


def test_the_weight_is_full_before_the_papers_run_ends(tmp_path: Path) -> None:
    """Epochs as the training counts them, of the crops that each task's synthetic images become."""
    page = " ".join((ROOT / "docs" / "paper.md").read_text().split())

    def full_from(params: Params, task: str) -> int:
        source = params.sources[params.tasks[task].sources.synthetic]
        assert isinstance(source, FetchedSource) and source.typical_images is not None
        crop = source.crops.synthetic
        images = 0
        for group in source.typical_images["synthetic"]:
            sides = (group.height, group.width)
            cut = crop is not None and min(sides) > crop.only_above
            images += group.images * math.prod(
                len(starts(side, crop.side, crop.step)) if cut else 1 for side in sides
            )
        whole_epochs = params.methods["noise_space"].ramp - 1
        return 1 + math.ceil(whole_epochs * images / params.train.batch)

    paper = composed(tmp_path, "preset=paper")
    for task in paper.tasks:
        update = full_from(paper, task)
        assert update < 0.8 * paper.train.steps
        assert f"{task} {update:,}" in page
    assert f"of {paper.train.steps:,} updates" in page
    small = composed(tmp_path, "preset=paper", "train.batch=24")
    assert full_from(small, "denoise") > small.train.steps
    assert f"only at {full_from(small, 'denoise'):,}" in page


@pytest.mark.parametrize(
    "overrides",
    [
        ["preset=paper", "train.batch=24"],
        ["preset=one_gpu", "train.batch=24", "train.accumulate=4"],
    ],
)
def test_24_images_in_all_are_as_said(overrides: list[str], tmp_path: Path) -> None:
    page = (ROOT / "docs" / "paper.md").read_text()
    assert f"dvc exp run -S {' -S '.join(overrides)}\n" in page
    assert composed(tmp_path, *overrides).train.batch == 24


def test_every_ablation_row_changes_what_the_paper_changed_and_follows_the_rest(
    tmp_path: Path,
) -> None:
    for overrides in ([], ["preset=paper"], ["methods.noise_space.weight=7"]):
        methods = composed(tmp_path, "+experiment=ablation", *overrides).methods
        methods.pop("target_supervised", None)  # the demo's source brings its bound along
        base = methods["noise_space"]
        plain = {"channel_shuffling": False, "residual_swapping": False}
        rows = {
            "steps_low": {**plain, "diffusion_step_range": (1, 100)},
            "steps_high": {**plain, "diffusion_step_range": (900, 999)},
            "steps_all": plain,
            "shuffling": {"residual_swapping": False},
            "only_synthetic": {"residual_swapping": False, "conditions": "synthetic"},
            "only_real": {"residual_swapping": False, "conditions": "real"},
        }
        assert methods.keys() == {"vanilla", "noise_space", *rows}
        for name, changes in rows.items():
            assert methods[name] == dataclasses.replace(base, **changes), name
    unpaired = composed(tmp_path, "methods=[noise_space,unpaired]").methods["unpaired"]
    assert (unpaired.target, unpaired.residual_swapping) == ("unpaired", False)
    assert unpaired.channel_shuffling


def test_the_baselines_stand_beside_the_method(tmp_path: Path) -> None:
    params = composed(tmp_path, "+experiment=baselines")
    first, *_, last = params.methods
    assert (first, last) == ("vanilla", "noise_space"), "by its gain the examples are chosen"
    assert list(params.tasks) == ["denoise", "derain", "deblur"]
    assert params.train == composed(tmp_path).train


def test_the_baselines_networks_grow_with_the_preset(tmp_path: Path) -> None:
    """Blocks of PixelDA and CycleGAN; multiplications a block and pixel as theirs, 9 x 2 x 4096."""
    chosen = "methods=[dann,dsn,pixel_da,cycada]"
    demo, tiny, paper, one = (
        composed(tmp_path, f"preset={preset}", chosen).methods
        for preset in ("demo", "tiny", "paper", "one_gpu")
    )
    demo.pop("target_supervised")  # the demo's source brings its bound along
    assert demo == tiny and paper == one
    for name in ("dann", "dsn", "pixel_da", "cycada"):
        assert (demo[name].learning_rate_factor, paper[name].learning_rate_factor) == (2, 1)
    for name in ("dann", "dsn"):
        assert (demo[name].channels, paper[name].channels) == (64, 512)
    for name in ("pixel_da", "cycada"):
        assert (demo[name].channels, demo[name].blocks) == (32, 2)
        assert (paper[name].channels, paper[name].blocks) == (128, 6)
        assert paper[name].channels ** 2 / 2**2 == 64**2 == 256**2 / 4**2


def test_the_blind_spot_is_tried_on_noise_alone(tmp_path: Path) -> None:
    for overrides in ([], ["preset=paper", "tasks=[paper_denoise]"]):
        params = composed(tmp_path, "+experiment=self_supervised", *overrides)
        assert list(params.tasks) == ["denoise"]
        params.methods.pop("target_supervised", None)
        first, *between, last = params.methods.values()
        assert (first.kind, last.kind) == ("vanilla", "noise_space")
        assert between and all(method.real_alone for method in between)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("experiment", ["scaling", "self_supervised"])
def test_experiments_on_denoise_keep_the_images_of_the_preset(
    experiment: str, preset: str, tmp_path: Path
) -> None:
    plain = composed(tmp_path, f"preset={preset}")
    params = composed(tmp_path, f"preset={preset}", f"+experiment={experiment}")
    assert set(params.tasks) >= {"denoise"}
    for task in params.tasks.values():
        assert dataclasses.replace(task, restorer=None) == plain.tasks["denoise"]
    named = set(dataclasses.asdict(params.tasks["denoise"].sources).values())
    assert set(params.sources) == named, "nothing is fetched in vain"


def test_the_experiments_hold_every_baseline(tmp_path: Path) -> None:
    together = {
        method.kind
        for name in ("baselines", "self_supervised")
        for method in composed(tmp_path, f"+experiment={name}").methods.values()
    }
    _, baselines = tagged(list(get_args(MethodSettings)))
    assert together == baselines.keys() - {"released"}


@pytest.mark.parametrize("preset", ["paper", "one_gpu"])
def test_real_sources_pack_their_truth_when_the_bound_is_in_the_run(
    preset: str, tmp_path: Path
) -> None:
    def packs(*overrides: str) -> dict[str, str | None]:
        sources = composed(tmp_path, f"preset={preset}", *overrides).sources
        return {name: s.truth_for for name, s in sources.items() if isinstance(s, FetchedSource)}

    nobody = dict.fromkeys(["dfwb", "sidd", "rain13k", "spa", "gopro", "realblur"])
    real = dict.fromkeys(["sidd", "spa", "realblur"], "target_supervised")
    assert packs() == packs("methods=[vanilla,dann]") == nobody
    assert packs("+experiment=baselines") == nobody | real
    assert packs("+experiment=baselines", "~methods.target_supervised") == nobody
    ahead = packs("sources.spa.truth_for=target_supervised")
    assert ahead == nobody | {"spa": "target_supervised"}
    with pytest.raises(UserError, match=r"task derain has no truth.*sources\.spa packs none"):
        packs("+experiment=baselines", "sources.spa.truth_for=null")


def test_the_bound_is_left_out_as_the_message_says(tmp_path: Path) -> None:
    overrides = ["+experiment=baselines", "sources=[folder]", "tasks=[own_denoise]"]
    with pytest.raises(UserError) as told:
        composed(tmp_path, *overrides)
    assert "no truth of its real training photographs" in str(told.value)
    said = str(told.value).rsplit("leave it out: ")[-1].strip("'")
    left = composed(tmp_path, *overrides, said).methods
    whole = composed(tmp_path, "+experiment=baselines").methods
    assert list(left) == [name for name in whole if name != "target_supervised"]
    assert len(left) == len(whole) - 1


def test_the_bound_comes_with_the_source_that_has_a_truth(tmp_path: Path) -> None:
    assert list(composed(tmp_path).methods) == ["vanilla", "noise_space", "target_supervised"]
    own = ["sources=[folder]", "tasks=[own_denoise]"]
    assert list(composed(tmp_path, *own).methods) == ["vanilla", "noise_space"]
    with pytest.raises(
        UserError, match=r"has no truth.*leave it out: '~methods.target_supervised'"
    ):
        composed(tmp_path, "sources=[skimage,folder]", own[1])


@pytest.mark.parametrize(
    ("method", "overrides", "message"),
    [
        (
            "neighbor2neighbor",
            ["train.patch=60"],
            "train.patch: found 60, expected a multiple of 8",
        ),
        ("ap_bsn", ["methods.ap_bsn.stride=5"], "train.patch: found 48, expected a multiple of 20"),
        ("pixel_da", ["train.patch=63"], "train.patch: found 63, expected a multiple of 2"),
        ("cycada", ["train.patch=63"], "train.patch: found 63, expected a multiple of 2"),
        *(
            (name, ["train.compile=true"], f"train.compile: found true, expected false: {said}")
            for name in ("dann", "dsn", "pixel_da", "cycada")
            for said in [f"methods.{name} reads or freezes parts of networks"]
        ),
        ("dsn", ["methods.dsn.channels=0"], "methods.dsn.channels: found 0, expected a number"),
        (
            "target_supervised",
            ["tasks.denoise.simulated_real=null"],
            "methods.target_supervised: task denoise has no truth of its real training photographs",
        ),
    ],
)
def test_what_does_not_go_with_a_baseline_is_told(
    method: str, overrides: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        composed(tmp_path, f"methods=[vanilla,{method}]", *overrides)
    assert message in str(caught.value)


@pytest.mark.parametrize("task", OWN_TASKS)
def test_tasks_on_own_photographs_compose(task: str, tmp_path: Path) -> None:
    compose(["sources=[folder]", f"tasks=[{task}]"], tmp_path / "params.yaml")
    (settings,) = read_params(tmp_path / "params.yaml").tasks.values()
    assert settings.simulated_real is None
    assert set(vars(settings.sources).values()) == {"folder"}


def test_dvc_exp_run_writes_the_same_bytes(tmp_path: Path) -> None:
    """``dvc exp run`` in a repository with the project's DVC settings and conf."""
    overrides = [
        "preset=tiny",
        "tasks=[derain,denoise]",
        "seeds=[0,1,2]",
        "train.learning_rate=1e-5",
        "train.adam_betas=[0.8,0.9]",
        "sources.skimage.licence='größer: \"frei\"'",
    ]
    repository = tmp_path / "repository"
    shutil.copytree(CONF, repository / CONF.relative_to(ROOT))
    (repository / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc" / "config", repository / ".dvc" / "config")
    (repository / "params.yaml").write_text("preset: before\n")
    (repository / "dvc.yaml").write_text(
        "stages: {see: {cmd: 'true', params: [preset], always_changed: true}}\n"
    )
    for command in (["init", "--quiet"], ["add", "--all"], ["commit", "--quiet", "-m", "first"]):
        _run("git", *command, folder=repository)
    settings = [part for override in overrides for part in ("--set-param", override)]
    _run(sys.executable, "-m", "dvc", "exp", "run", *settings, folder=repository)

    compose(overrides, tmp_path / "params.yaml")
    composed = (tmp_path / "params.yaml").read_bytes()
    assert "größer" in composed.decode()
    assert (repository / "params.yaml").read_bytes() == composed


def _run(*command: str, folder: Path) -> None:
    who = {
        f"GIT_{role}_{fact}": "test"
        for role in ("AUTHOR", "COMMITTER")
        for fact in ("NAME", "EMAIL")
    }
    done = subprocess.run(command, cwd=folder, env=os.environ | who, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_overrides_arrive(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    compose(["preset=tiny", "seeds=[3,5]", "tasks=[derain]", "restorer=unet_base"], path)
    params = read_params(path)
    assert params.seeds == (3, 5)
    assert list(params.tasks) == ["derain"]
    assert params.restorer.channels == 64  # the paper's


def test_floats_in_scientific_notation_stay_floats(tmp_path: Path) -> None:
    """Bare PyYAML reads 1e-05 as a text."""
    path = tmp_path / "params.yaml"
    compose(["train.learning_rate=1e-5"], path)
    params = read_params(path)
    assert params.train.learning_rate == 0.00001 and type(params.train.learning_rate) is float
    schedule = params.methods["noise_space"].schedule
    assert schedule.beta_first == 0.000001 and type(schedule.beta_first) is float


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["preset=tny"], ["preset", "'tny'", "tiny"]),
        (["train.stps=3"], ["train.stps"]),
        (["+train.stps=3"], ["train.stps", "did you mean 'steps'?"]),
        (["train.steps=many"], ["train.steps", "'many'", "a whole number of at least 1"]),
        (["train.steps"], ["train.steps"]),
        (["train.steps={"], ["train.steps={"]),
        (["train.steps=1,2"], ["train.steps=1,2"]),
        (["train.steps=${nowhere}"], ["nowhere"]),
        (["~train"], ["train: missing"]),
        (["tasks=[]"], ["tasks"]),
        (["sources=[folder]"], ["tasks.denoise.sources.synthetic", "'skimage'", "folder"]),
    ],
)
def test_a_failed_composition_changes_no_file(
    overrides: list[str], words: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("preset: kept\n")
    with pytest.raises(UserError) as caught:
        compose(overrides, path)
    assert all(word in str(caught.value) for word in words), caught.value
    assert "\n" not in str(caught.value)
    assert path.read_text() == "preset: kept\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    "preset",
    [b"train:\n\tsteps: 3\n", b"train: {steps: 3, steps: 4}\n", b"preset: gr\xfc\xdfer\n"],
    ids=["tab", "key twice", "Latin-1"],
)
def test_a_preset_that_is_no_yaml_is_told(
    preset: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(CONF, tmp_path / "conf")
    (tmp_path / "conf" / "preset" / "mine.yaml").write_bytes(b"# @package _global_\n" + preset)
    monkeypatch.setattr("pipeline.config.compose.CONF", tmp_path / "conf")
    with pytest.raises(UserError):
        compose(["preset=mine"], tmp_path / "params.yaml")
    assert not (tmp_path / "params.yaml").exists()


def test_the_command_tells_a_mistake_in_one_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipeline", "compose", "+train.stps=3"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stderr.startswith("error: train.stps: unknown key, did you mean 'steps'?")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


# What is read


def test_params_cannot_be_changed(values: dict[str, Any]) -> None:
    params = check(values)
    assert isinstance(params, Params)
    with pytest.raises(dataclasses.FrozenInstanceError):
        params.train.steps = 3  # type: ignore[misc]


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"params.yaml: not found; .*python -m pipeline compose"):
        read_params(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    "content",
    [
        b"seeds: [0",
        b"train:\n\tsteps: 3\n",
        b"preset: demo\npreset: tiny\n",
        b"<<<<<<< HEAD\npreset: demo\n",
        b"preset: ${\n",
        b"preset: gr\xfc\xdfer\n",
        b"3.5\n",
        b"- preset\n- demo\n",
        b"demo\n",
        b"",
    ],
    ids=[
        *("open list", "tab", "key twice", "merge conflict", "interpolation", "Latin-1"),
        *("number", "list", "word", "empty"),
    ],
)
def test_a_file_that_is_no_configuration_is_told(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError):
        read_params(path)
