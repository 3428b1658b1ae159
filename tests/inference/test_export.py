"""ONNX held against torch on sizes that the exporter has not seen; the card against the facts."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch

from pipeline.commands.export import main
from pipeline.config.build import build
from pipeline.config.restorers import RestorerSettings
from pipeline.inference.model import InRange, load_network
from pipeline.inference.onnx import export_onnx
from pipeline.models.build import build_restorer, giga_macs
from pipeline.models.weights import save_tensors
from pipeline.runtime.errors import UserError
from tests.helpers import preloaded
from tests.report import test_report_cost

onnx = pytest.importorskip("onnx", reason="the optional packages of pip install '.[export]'")
onnxruntime = pytest.importorskip("onnxruntime")

ROOT = Path(__file__).parents[2]
SETTINGS = {"kind": "unet", "levels": 3, "channels": 6}
FACTS = {
    "task": "denoise",
    "method": "noise_space",
    "seed": 0,
    "steps": 1900,
    "restorer": SETTINGS,
    "image_range": [-1.0, 1.0],
    "synthetic": {"degradation": {"kind": "gaussian_noise", "sigma_255": [0, 75]}},
    "train": {"steps": 1900, "batch": 8},
    "method_settings": {"kind": "noise_space"},
    "device": "CPU",
    "precision": "fp32",
    "torch": "2",
}


def save(path: Path, **facts: Any) -> Path:
    torch.manual_seed(0)
    network = build_restorer(build(RestorerSettings, SETTINGS, "restorer"))
    for parameter in network.parameters():
        parameter.data *= 1.5
    save_tensors(path, network.state_dict(), {**FACTS, **facts})
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("export")
    model, result = save(folder / "model.safetensors"), folder / "sub" / "model.onnx"
    main([str(model), "--onnx", str(result)])
    return model, result


@pytest.mark.parametrize(
    "shape", [(1, 3, 4, 4), (1, 3, 64, 96), (3, 3, 20, 8), (2, 3, 100, 36), (1, 3, 8, 12)]
)
def test_onnx_gives_what_torch_gives(exported: tuple[Path, Path], shape: tuple[int, ...]) -> None:
    model, result = exported
    images = np.random.default_rng(0).random(shape, dtype=np.float32)
    session = onnxruntime.InferenceSession(result, providers=["CPUExecutionProvider"])
    (found,) = session.run(["restored"], {"degraded": images})
    with torch.no_grad():
        expected = load_network(model)[0](torch.from_numpy(images)).numpy()
    assert found.shape == shape and found.dtype == np.float32
    assert np.abs(expected - images).max() > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)


def test_the_file_says_what_it_is(exported: tuple[Path, Path]) -> None:
    model = onnx.load(exported[1])
    onnx.checker.check_model(model)
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert told["multiple_of"] == "4" and json.loads(told["facts"]) == FACTS
    dimensions = model.graph.input[0].type.tensor_type.shape.dim
    assert [part.dim_param for part in dimensions] == ["batch", "", "4*rows", "4*columns"]
    assert [path.name for path in exported[1].parent.iterdir()] == ["model.onnx"]


def test_other_sizes_are_refused_by_the_runtime(exported: tuple[Path, Path]) -> None:
    session = onnxruntime.InferenceSession(exported[1], providers=["CPUExecutionProvider"])
    with pytest.raises(Exception, match="dimensions"):
        session.run(None, {"degraded": np.zeros((1, 3, 33, 32), np.float32)})


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [preloaded.python(), "-m", "pipeline", "export", *words]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nothing", "--card", "c.md"], "error: nothing: no model"),
        (["broken.safetensors", "--onnx", "m.onnx"], "damaged or not written by this project"),
        (["model.safetensors", "--card", "model.safetensors/c.md"], "error: "),
        (["model.safetensors"], "nothing to write"),
    ],
)
def test_mistakes_end_in_one_line(words: list[str], message: str, tmp_path: Path) -> None:
    save(tmp_path / "model.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"\x80\x04pickle")
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1 or done.stderr.startswith("usage")


class OfOneSize(torch.nn.Module):
    """A mask, or a division into windows, has the size that the exporter sees."""

    factor = 4

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images * torch.ones(images.shape[2:].numel()).view(*map(int, images.shape[2:]))


class EveryTimeAnother(OfOneSize):
    """A number that Python computes is in the file as it was when the exporter looked."""

    calls = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return images * self.calls


class ByItsPixels(OfOneSize):
    """A choice that depends on the image cannot be followed."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images if images.sum() > 0 else -images


@pytest.mark.parametrize(
    ("network", "reason"),
    [
        (OfOneSize, "ONNXRuntimeError"),
        (EveryTimeAnother, r"its results differ by \d"),
        (ByItsPixels, "Failed to export"),
    ],
)
def test_what_cannot_be_of_any_size_is_refused(
    network: type[OfOneSize], reason: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=f"cannot be written as ONNX of any size.*{reason}"):
        export_onnx(cast(InRange, network()), FACTS, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_missing_packages_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    model = save(tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"onnx is not installed; pip install '\.\[export\]'"):
        main([str(model), "--onnx", str(tmp_path / "m.onnx")])


def test_a_full_disk_leaves_no_half_file(small_disk: Path, tmp_path: Path) -> None:
    (small_disk / "filler").write_bytes(bytes(2**20 - 40_000))
    save(tmp_path / "model.safetensors")
    done = run("model.safetensors", "--onnx", str(small_disk / "m.onnx"), cwd=tmp_path)
    assert done.returncode == 2 and "No space left on device" in done.stderr
    assert [path.name for path in small_disk.iterdir()] == ["filler"]


# The card


def card(*words: str) -> str:
    main([*words, "--card", "card.md"])
    return Path("card.md").read_text()


def test_a_card_of_a_bare_file_has_no_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = card(str(save(tmp_path / "model.safetensors")))
    network = build_restorer(build(RestorerSettings, SETTINGS, "restorer"))
    parameters = sum(parameter.numel() for parameter in network.parameters())
    for told in ("**denoise**", "**noise_space**", f"| {parameters:,} |", "| 1900 |",
                 '"sigma_255": [0, 75]', "| -1.0 (black) to 1.0 (white) |"):  # fmt: skip
        assert told in text
    assert "None: no dvc.lock here names an evaluation of this file" in text and "PSNR" not in text
    assert "not recorded in the file" in text and "The file records none" in text


SCORES = "| own, simulated real | `sidd` | 16 | 25.12 | 0.8564 |"


def evaluated(model: Path) -> Path:
    """Write scores of a model, and a dvc.lock as DVC does of their evaluation."""
    metrics = Path("reports/metrics/denoise/noise_space-0.json")
    metrics.parent.mkdir(parents=True)
    row = {"psnr": 25.118, "ssim": 0.85637, "images": 16, "protocol": "sidd"}
    metrics.write_text(json.dumps({"own, simulated real": row}))
    deps = [{"path": "data/models/x", "hash": "md5", "md5": md5_of(model)}, {"path": "x.py"}]
    outs = [
        {"path": "data/evaluations/denoise/noise_space-0", "hash": "md5", "md5": "0.dir"},
        {"path": str(metrics), "hash": "md5", "md5": md5_of(metrics)},
    ]
    stages = {"evaluate@denoise-noise_space-0": {"deps": deps, "outs": outs}}
    Path("dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": stages}))
    return metrics


def md5_of(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_a_card_of_a_run_has_its_scores_with_their_protocol(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run_folder = tmp_path / "data" / "models" / "denoise" / "noise_space-0"
    run_folder.mkdir(parents=True)
    model = save(run_folder / "model.safetensors")
    evaluated(model)
    text = card("denoise/noise_space-0")
    assert SCORES in text and "# denoise/noise_space-0" in text
    # a copy is the same model
    assert SCORES in card(str(shutil.copy(model, "copy.safetensors")))


def test_a_card_never_has_the_scores_of_another_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores and dvc.lock come with git; the model of that name may be made anew here."""
    monkeypatch.chdir(tmp_path)
    run_folder = tmp_path / "data" / "models" / "denoise" / "noise_space-0"
    run_folder.mkdir(parents=True)
    model = save(run_folder / "model.safetensors")
    metrics = evaluated(model)
    save(model, steps=1901)
    assert "PSNR" not in card("denoise/noise_space-0")
    save(model)
    assert SCORES in card("denoise/noise_space-0")
    metrics.write_text(metrics.read_text().replace("25.118", "35.118"))
    assert "PSNR" not in card("denoise/noise_space-0")
    metrics.unlink()
    assert "PSNR" not in card("denoise/noise_space-0")


def test_a_card_counts_multiplications_by_the_configuration_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    network = build_restorer(build(RestorerSettings, SETTINGS, "restorer"))
    text = card(str(save(tmp_path / "model.safetensors")))
    assert f"| Multiplications | {giga_macs(network):.2f} GMACs for 128x128 pixels |" in text


def record(model: Path, target: str = "paired") -> str:
    """Write a dvc.lock as DVC does that names the file; return the file's hash."""
    md5 = md5_of(model)
    sources = {"synthetic": "clean", "real": "phone", "unpaired": "others", "test": "tested"}

    def settings(key: str, value: Any) -> dict[str, Any]:
        return {"params": {"params.yaml": {key: value}}}

    stages: dict[str, Any] = {
        f"download@{name}": settings(f"sources.{name}", {"licence": f"terms of {name}"})
        for name in sources.values()
    }
    stages["synthesize@denoise"] = settings("tasks.denoise", {"sources": sources})
    out = {"path": "data/models/denoise/noise_space-0/model.safetensors", "hash": "md5", "md5": md5}
    stages["train@denoise-noise_space-0"] = {"outs": [out]}
    Path("dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": stages}))
    return md5


def test_a_card_names_commit_sources_and_licences_of_the_very_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    model = save(tmp_path / "renamed.safetensors")
    record(model)
    text = card(str(model))
    for told in ("* clean photographs of the synthetic pairs: clean\n",
                 "* real photographs without truth: phone\n",
                 "* clean: terms of clean\n* phone: terms of phone\n"):  # fmt: skip
        assert told in text
    assert "tested" not in text and "others" not in text, "not seen in training"
    assert "| Commit | unknown: no commit here names this file in its dvc.lock |\n" in text
    test_report_cost.git("init", "--quiet")
    test_report_cost.commit("results")
    first = test_report_cost.git("rev-parse", "HEAD")
    Path("notes.md").write_text("a later commit made no model")
    test_report_cost.commit("notes")
    row = f"| Commit | `{first}`, the first whose dvc.lock names this file |\n| SHA-256"
    assert row in card(str(model))
    # the same configuration, another file
    other = save(tmp_path / "other.safetensors", seed=1)
    text = card(str(other))
    assert "not recorded in the file" in text and first not in text and "terms of clean" not in text


def test_a_card_names_the_other_clean_photographs_of_the_extension(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    method = {"kind": "noise_space", "target": "unpaired"}
    model = save(tmp_path / "m.safetensors", method_settings=method)
    record(model)
    assert "* clean photographs of another collection: others\n" in card(str(model))
    taken_over = save(tmp_path / "m.safetensors", method_settings={"kind": "released"})
    record(taken_over)
    text = card(str(taken_over))
    assert "not recorded in the file" in text and "terms of clean" not in text


def test_half_a_lock_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = save(tmp_path / "m.safetensors")
    Path("dvc.lock").write_text("stages:\n  train@x: {outs: [")
    with pytest.raises(UserError, match=r"dvc\.lock: damaged; python -m pipeline mend_lock"):
        card(str(model))


def test_facts_of_a_stranger_stay_in_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = card(str(save(tmp_path / "m.safetensors", task="x\n# Title <script>|`", seed=None)))
    assert "\n# Title" not in text and "<script>" not in text and "| Seed | unknown |" in text


def test_a_card_without_most_facts_says_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = save(tmp_path / "m.safetensors")
    from pipeline.models.weights import load_tensors

    tensors, facts = load_tensors(path)
    save_tensors(path, tensors, {name: facts[name] for name in ("restorer", "image_range")})
    assert "task **unknown**" in card(str(path))


def test_half_precision_is_half_as_large_and_close(tmp_path: Path) -> None:
    model, result = save(tmp_path / "m.safetensors"), tmp_path / "half.onnx"
    main([str(model), "--onnx", str(result), "--fp16"])
    main([str(model), "--onnx", str(tmp_path / "full.onnx")])
    weights = onnx.load(result).graph.initializer
    assert sum(w.data_type == onnx.TensorProto.FLOAT16 for w in weights) > len(weights) / 2
    network, _ = load_network(model)
    given = torch.rand(1, 3, 24, 40, generator=torch.Generator().manual_seed(3))
    session = onnxruntime.InferenceSession(str(result), providers=["CPUExecutionProvider"])
    (found,) = session.run(["restored"], {"degraded": given.numpy()})
    assert found.dtype == np.float32
    assert 0 < np.abs(found - network(given).detach().numpy()).max() < 2e-2
    facts = session.get_modelmeta().custom_metadata_map
    assert facts["precision"] == "fp16" and facts["multiple_of"] == str(network.factor)
    assert facts["training"] == "task denoise, method noise_space, seed 0, steps 1900"


@pytest.mark.parametrize("option", ["--onnx", "--card"])
def test_a_folder_in_the_place_of_a_file_is_named(option: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{option} .*: is a folder; expected the name of a file"):
        main([str(save(tmp_path / "m.safetensors")), option, str(tmp_path)])
