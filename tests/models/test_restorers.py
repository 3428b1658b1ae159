"""Every restorer: any size, a training step, its file, tiles, export, and how to add one."""

import copy
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

from pipeline.config.build import ConfigError, build
from pipeline.config.compose import CONF
from pipeline.config.restorers import RestorerSettings
from pipeline.config.running import Evaluate
from pipeline.datasets.batches import Batch
from pipeline.dry_run.measuring import write_stand_ins
from pipeline.inference.model import load_model, load_network
from pipeline.inference.onnx import export_onnx
from pipeline.inference.tiled import restore
from pipeline.methods.bottleneck import Bottleneck
from pipeline.methods.method import Progress, build_method
from pipeline.models.build import build_restorer, giga_macs, parameter_count, skeleton
from pipeline.models.weights import save_tensors
from pipeline.runtime.errors import UserError
from pipeline.runtime.paths import MODEL_FILE, STATE_FILE
from pipeline.training.loop import train
from tests.helpers import preloaded
from tests.helpers.small_restorers import SMALL
from tests.helpers.training_job import BASELINES, NOISE_SPACE, TRAIN, VANILLA, job

ROOT = Path(__file__).parents[2]
# what the papers give, in millions; of Uformer its code's own count, windows of 8
PUBLISHED = {"unet_base": 8.56, "dncnn": 0.67, "nafnet": 29.16, "swinir": 11.5,
             "uformer_tiny": 5.23, "uformer_small": 20.63, "uformer_base": 50.88,
             "restormer": 26.13}  # fmt: skip
WITHOUT_ONNX = {"swinir", "uformer"}  # their masks and windows are made for one size
SETTINGS = Evaluate("fp32", 1, 1, 0, None, tile=64, tile_overlap=16, kept_images=0)


def settings(name: str) -> RestorerSettings:
    found: RestorerSettings = build(RestorerSettings, {"kind": name, **SMALL[name]}, "restorer")
    return found


@pytest.fixture(params=sorted(SMALL))
def name(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture
def network(name: str) -> torch.nn.Module:
    torch.manual_seed(0)
    return build_restorer(settings(name))


def image(height: int, width: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).random((height, width, 3), dtype=np.float32)


def test_every_restorer_is_tried_here() -> None:
    known = {OmegaConf.load(path).kind for path in (CONF / "restorer").glob("*.yaml")}
    assert known == set(SMALL)


@pytest.mark.parametrize("choice", sorted(PUBLISHED))
def test_sizes_are_the_published_ones(choice: str) -> None:
    values = OmegaConf.to_container(OmegaConf.load(CONF / "restorer" / f"{choice}.yaml"))
    network = build_restorer(build(RestorerSettings, values, "restorer"))
    assert parameter_count(network) / 1e6 == pytest.approx(PUBLISHED[choice], rel=0.012)


@pytest.mark.parametrize(("height", "width"), [(45, 61), (1, 7), (64, 33)])
def test_any_size_keeps_its_size(network: torch.nn.Module, height: int, width: int) -> None:
    restored = restore(network.eval(), image(height, width), 64, 16, "fp32")
    assert restored.shape == (height, width, 3)
    assert np.isfinite(restored).all()


def test_it_restores_a_square_and_a_strip_of_its_factor(network: torch.nn.Module) -> None:
    factor = int(network.factor)  # type: ignore[arg-type]
    for height, width in ((factor, factor), (factor, 3 * factor), (2 * factor, factor)):
        assert network(torch.zeros(2, 3, height, width)).shape == (2, 3, height, width)


def test_tiles_give_nearly_what_the_whole_gives(network: torch.nn.Module) -> None:
    """Not quite: some see a whole image at once, and all see the rims of tiles, which fade out."""
    given = image(96, 128)
    tiled, whole = (restore(network.eval(), given, tile, 32, "fp32") for tile in (64, 512))
    assert np.abs(tiled - whole).mean() < 0.05 * np.abs(whole - given).mean()


def test_a_training_step_lowers_the_loss_of_its_batch(network: torch.nn.Module) -> None:
    clean = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    degraded = clean + 0.1 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(2))
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3)
    before = F.l1_loss(network(degraded), clean)
    before.backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    assert gradients and all(gradient.isfinite().all() for gradient in gradients)
    optimizer.step()
    assert F.l1_loss(network(degraded), clean) < before


def test_two_of_one_seed_are_equal(name: str, network: torch.nn.Module) -> None:
    torch.manual_seed(0)
    other = build_restorer(settings(name))
    pairs = zip(network.state_dict().values(), other.state_dict().values(), strict=True)
    assert all(torch.equal(value, again) for value, again in pairs)


def test_its_file_is_all_that_is_needed(
    name: str, network: torch.nn.Module, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    facts = {"restorer": {"kind": name, **SMALL[name]}, "image_range": [0.0, 1.0]}
    save_tensors(path, network.state_dict(), facts)
    given = image(48, 80)
    placed = network.eval().to(memory_format=torch.channels_last)
    expected = restore(placed, given, SETTINGS.tile, SETTINGS.tile_overlap, "fp32")
    np.testing.assert_array_equal(load_model(path, SETTINGS)(given), expected)


def test_a_file_that_names_a_huge_network_is_refused_without_making_it(
    name: str, network: torch.nn.Module, tmp_path: Path
) -> None:
    """In a process that may take 4 GB of memory; each network would take some 10 or more."""
    huge: dict[str, dict[str, Any]] = {
        "unet": {"levels": 6, "channels": 512},
        "dncnn": {"layers": 64, "channels": 512},
        "nafnet": {"channels": 512},
        "swinir": {"channels": 512, "blocks": [64] * 64, "heads": [1] * 64},
        "uformer": {"channels": 512},
        "restormer": {"channels": 512, "blocks": [4] * 4},
    }
    if name not in huge:
        pytest.skip("nothing in its settings makes it huge")
    path = tmp_path / "model.safetensors"
    named = {"kind": name, **SMALL[name], **huge[name]}
    save_tensors(path, network.state_dict(), {"restorer": named, "image_range": [0, 1]})
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_DATA, (4 * 10**9,) * 2)\n"
        "from pathlib import Path; from pipeline.runtime.errors import UserError\n"
        "from pipeline.inference.model import load_network\n"
        f"try: load_network(Path({str(path)!r}))\n"
        "except UserError as error: print(error)"
    )
    done = subprocess.run(
        [preloaded.python(), "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert re.search("weights of another network: found [0-9,]+ values", done.stdout), done.stderr


BOTTLENECKS = {
    "unet_tiny": ("down_path.2", 32, 4),
    "unet_small": ("down_path.2", 96, 4),
    "unet_medium": ("down_path.3", 384, 8),
    "unet_base": ("down_path.3", 512, 8),
    "dncnn": ("model.37", 64, 1),
    "nafnet_small": ("middle_blks", 64, 4),
    "nafnet": ("middle_blks", 512, 16),
    "swinir": ("conv_after_body", 180, 1),
    "uformer_tiny": ("conv", 256, 16),
    "uformer_small": ("conv", 512, 16),
    "uformer_base": ("conv", 512, 16),
    "restormer": ("latent", 384, 8),
}
"""Where the feature-space methods read: the module, its channels, how much smaller it is."""
WITH_FEATURES = {OmegaConf.load(CONF / "restorer" / f"{choice}.yaml").kind
                 for choice in BOTTLENECKS}  # fmt: skip


@pytest.mark.parametrize("choice", BOTTLENECKS)
def test_the_bottleneck_lies_between_encoder_and_decoder(choice: str) -> None:
    values = OmegaConf.to_container(OmegaConf.load(CONF / "restorer" / f"{choice}.yaml"))
    place = Bottleneck(skeleton(build(RestorerSettings, values, "restorer")))
    assert (place.name, place.channels, place.factor) == BOTTLENECKS[choice]


@pytest.mark.parametrize("method", ["dann", "dsn", "cycada"])
def test_its_features_are_aligned(name: str, method: str, network: torch.nn.Module) -> None:
    """At two sizes, the features a map that grows with the image, all weights with a gradient."""
    if name not in WITH_FEATURES:
        with pytest.raises(UserError, match="found no feature map"):
            build_method(network, BASELINES[method])
        return
    adaptation = build_method(network, BASELINES[method])
    place = adaptation.bottleneck
    for side in (32, 64):
        clean, synthetic, real = torch.rand(3, 2, 3, side, side)
        restored, features = place.read(network, real)
        torch.testing.assert_close(restored, network(real))
        assert features.shape == (2, place.channels, side // place.factor, side // place.factor)
        terms = adaptation(Batch(synthetic, clean, real), None, Progress(1, 0, 0.5))
        adaptation.zero_grad()
        terms["total"].backward()
        weights = adaptation.named_parameters()
        assert [key for key, value in weights if value.grad is None] == []


@pytest.mark.parametrize(
    ("name", "changed", "side"),
    [
        ("uformer", {"window": 16}, 256),
        ("uformer", {"window": 5}, 160),
        ("swinir", {"window": 7}, 133),
    ],
)
def test_multiplications_are_of_128_pixels_whatever_the_factor(
    name: str, changed: dict[str, Any], side: int
) -> None:
    chosen = build(RestorerSettings, {"kind": name, **SMALL[name], **changed}, "restorer")
    assert side % chosen.factor == 0
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        build_restorer(chosen)(torch.zeros(1, 3, side, side))
    expected = counter.get_total_flops() / 2e9 * (128 / side) ** 2
    assert giga_macs(build_restorer(chosen)) == pytest.approx(expected)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_training_loop_takes_it(
    name: str, precision: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pretrained twice to the same bytes, then adapted; restored from what it leaves."""
    monkeypatch.setenv("PIPELINE_CHECKPOINTS", str(tmp_path / "checkpoints"))
    write_stand_ins(tmp_path / "images", 32)
    chosen = replace(TRAIN, patch=32, steps=3, pretrain_steps=1, precision=precision)
    common = {"restorer": settings(name), "train": chosen}
    states = []
    for folder in ("start", "again"):
        train(job(tmp_path / "images", tmp_path / folder, VANILLA, last_step=1, keeps="state",
                  **common))  # fmt: skip
        states.append(tmp_path / folder / STATE_FILE)
    assert states[0].read_bytes() == states[1].read_bytes()
    train(job(tmp_path / "images", tmp_path / "end", NOISE_SPACE, start_from=states[0],
              last_step=3, **common))  # fmt: skip
    torch.use_deterministic_algorithms(False)
    restored = load_model(tmp_path / "end" / MODEL_FILE, SETTINGS)(image(70, 45))
    assert restored.shape == (70, 45, 3) and np.isfinite(restored).all()


def test_both_domains_of_a_batch_do_not_mix(network: torch.nn.Module) -> None:
    images = torch.rand(3, 3, 32, 32)  # as in training: no eval()
    with torch.no_grad():
        torch.testing.assert_close(network(images)[:1], network(images[:1]))


def test_a_moving_average_keeps_what_is_no_weight(network: torch.nn.Module) -> None:
    average = torch.optim.swa_utils.AveragedModel(copy.deepcopy(network))
    average.update_parameters(network)
    given = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(average.eval()(given), network.eval()(given))


LONG_TO_EXPORT = {"restormer", "swinir", "uformer"}  # a thousand operations


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in LONG_TO_EXPORT))
        for name in sorted(SMALL.keys() - {"unet"})  # tried in test_export.py
    ],
)
def test_export(name: str, network: torch.nn.Module, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    path, target = tmp_path / "model.safetensors", tmp_path / "model.onnx"
    facts = {"restorer": {"kind": name, **SMALL[name]}, "image_range": [0.0, 1.0]}
    save_tensors(path, network.state_dict(), facts)
    loaded, facts = load_network(path)
    if name in WITHOUT_ONNX:
        with pytest.raises(UserError, match="cannot be written as ONNX of any size"):
            export_onnx(loaded, facts, target)
        assert not target.exists()
        return
    export_onnx(loaded, facts, target)
    session = onnxruntime.InferenceSession(target, providers=["CPUExecutionProvider"])
    for batch, rows, columns in ((1, 2, 3), (2, 5, 1)):
        given = torch.rand(batch, 3, rows * loaded.factor * 2, columns * loaded.factor * 2)
        (found,) = session.run(None, {"degraded": given.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(found, loaded(given).numpy(), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "changed", "message"),
    [
        ("nafnet", {"decoder_blocks": [1]}, "restorer.decoder_blocks: found 1 values, expected 2"),
        ("swinir", {"heads": [3]}, "restorer.heads: found 3, expected a number that divides 8"),
        ("uformer", {"blocks": [1] * 8}, "restorer.blocks: found 8 values, expected 9"),
        ("restormer", {"blocks": [1]}, "restorer.blocks: found 1 values, expected 4"),
    ],
)
def test_settings_that_do_not_go_together(name: str, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build(RestorerSettings, {"kind": name, **SMALL[name], **changed}, "restorer")


def test_a_missing_library_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "pipeline.models.restorers.nafnet", raising=False)
    monkeypatch.setitem(sys.modules, "spandrel.architectures.NAFNet", None)
    with pytest.raises(UserError, match=r"nafnet needs spandrel"):
        build_restorer(settings("nafnet"))


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project with the restorer of the page, each block put where the page says."""
    copied = tmp_path_factory.mktemp("recipe") / "copy"
    for folder in ("pipeline", "stages", "tests"):
        shutil.copytree(ROOT / folder, copied / folder, ignore=shutil.ignore_patterns("*.pyc"))
    shutil.copy(ROOT / "pyproject.toml", copied)
    page = (ROOT / "docs" / "restorers.md").read_text()
    for path, text in re.findall(r"`([\w/.]+)`:\n\n((?:(?:    .*)?\n)+)", page):
        lines = "\n".join(line[4:] for line in text.rstrip().splitlines()) + "\n"
        file = copied / path
        if file.exists():  # a class to be added and named in the union at the end of the file
            before, union = file.read_text().split("\nRestorerSettings = (\n")
            name = re.findall(r"^class (\w+)", lines, re.MULTILINE)[0]
            lines = f"{before}\n{lines}\n\nRestorerSettings = (\n    {name} |{union}"
        file.write_text(lines)
    (small,) = re.findall(r"a small one in `SMALL`, `(.*?)`", page)
    here = copied / "tests" / "helpers" / "small_restorers.py"
    before, after = here.read_text().split('    "unet": {"levels"', 1)
    here.write_text(f'{before}    {small},\n    "unet": {{"levels"{after}')
    return copied


def run_in(folder: Path, *words: str) -> str:
    places = {"PYTHONPATH": str(folder), "PIPELINE_CHECKPOINTS": str(folder.parent / "saved")}
    done = subprocess.run([preloaded.python(), *words], cwd=folder, env={**os.environ, **places},
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def test_the_recipe_of_a_new_restorer_works(extended: Path) -> None:
    """With the values of its file: trained, then a photograph restored in tiles, as a user does."""
    code = (
        "from pipeline.config.compose import compose; from pathlib import Path\n"
        "from pipeline.config.read import read_params\n"
        "from pipeline.training.loop import train; from dataclasses import replace\n"
        "from tests.helpers.training_job import TRAIN, VANILLA, job, write_images\n"
        "compose(['restorer=median', 'evaluate.tile=64', 'evaluate.tile_overlap=16'],\n"
        "        Path('params.yaml'))\n"
        "params = read_params(Path('params.yaml')); write_images(Path('images'))\n"
        "train(job(Path('images'), Path('end'), VANILLA, restorer=params.restorer, last_step=2,\n"
        "          train=replace(TRAIN, steps=2, pretrain_steps=0)))\n"
    )
    run_in(extended, "-c", code)
    given = np.random.default_rng(0).integers(0, 256, (70, 145, 3), dtype=np.uint8)
    Image.fromarray(given).save(extended / "photo.png")
    run_in(
        extended,
        "-m",
        "pipeline",
        "restore",
        "photo.png",
        "--model",
        "end",
        "--out",
        "restored",
    )
    restored = np.asarray(Image.open(extended / "restored" / "photo.png"))
    assert restored.shape == given.shape and restored.std() < given.std(), "smoother"


def test_the_tests_of_all_restorers_take_that_of_the_recipe(extended: Path) -> None:
    said = run_in(
        extended, "-m", "pytest", "-q", "-p", "no:cacheprovider",
        str(Path(__file__).relative_to(ROOT)), "-k", "median or every_restorer_is_tried",
    )  # fmt: skip
    assert re.search(r"\b\d\d passed", said), said
