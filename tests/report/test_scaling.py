"""Several sizes of the restorer in one run: same images, own trainings, one figure."""

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dvc.repo import Repo
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from pipeline.config.build import ConfigError
from pipeline.config.compose import compose
from pipeline.config.params import Params
from pipeline.config.read import check, read_params
from pipeline.config.restorers import UNetSettings
from pipeline.report.figures import drawing, scaling
from pipeline.report.results import DataSet, TaskResults, TrainedModel
from pipeline.runtime.paths import DEGRADED, Run
from tests.helpers import preloaded

ROOT = Path(__file__).parents[2]
SIZES = {"denoise": 24, "denoise_8": 8, "denoise_16": 16, "denoise_40": 40}


def composed(folder: Path, *overrides: str) -> Params:
    compose(
        ["+experiment=scaling", "~methods.target_supervised", *overrides], folder / "params.yaml"
    )
    return read_params(folder / "params.yaml")


@pytest.fixture
def params(tmp_path: Path) -> Params:
    return composed(tmp_path)


def test_every_size_is_a_task_of_the_same_images(params: Params) -> None:
    restorers = {tasks[0]: restorer for restorer, tasks in params.restorers().items()}
    assert restorers == {
        name: UNetSettings("unet", 3, channels) for name, channels in SIZES.items()
    }
    images = {repr(dataclasses.replace(t, restorer=None)) for t in params.tasks.values()}
    assert len(images) == 1


def test_the_sizes_follow_what_is_set_for_denoise(tmp_path: Path) -> None:
    params = composed(tmp_path, "tasks.denoise.synthetic.degradation.sigma_255=[5,5]")
    for task in params.tasks.values():
        assert getattr(task.synthetic.degradation, "sigma_255", None) == (5, 5)


def test_the_default_graph_has_the_stages_that_it_had(tmp_path: Path) -> None:
    for name in ("dvc.yaml", "pipeline", "stages", ".dvc"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("cache", "tmp"))
        else:
            shutil.copy(source, tmp_path)
    (tmp_path / ".git").mkdir()

    def stages() -> set[str]:
        return {stage.name for stage in Repo(str(tmp_path), uninitialized=True).index.stages}

    compose(["tasks=[denoise]"], tmp_path / "params.yaml")
    default = stages()
    assert {"pretrain@denoise-0", "train@denoise-vanilla-0"} <= default
    compose(["+experiment=scaling"], tmp_path / "params.yaml")
    more = stages()
    assert default < more
    assert "train@denoise_40-noise_space-0" in more
    assert len([name for name in more if name.startswith("train@")]) == 3 * len(SIZES)


def test_another_kind_within_a_run_is_refused(tmp_path: Path) -> None:
    composed(tmp_path)
    values: Any = OmegaConf.to_container(OmegaConf.load(tmp_path / "params.yaml"))
    values["tasks"]["denoise_8"]["restorer"] = {"kind": "dncnn", "layers": 3, "channels": 8}
    with pytest.raises(ConfigError, match=r"tasks.denoise_8.restorer.kind: found 'dncnn', expec"):
        check(values)


def test_the_patch_must_fit_every_size(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train.patch: found 48, expected a multiple of 32"):
        composed(tmp_path, "tasks.denoise_8.restorer.levels=6", "train.patch=48")


def test_the_dry_run_measures_each_restorer_once() -> None:
    """The restorer of the run is that of denoise_8."""
    command = [preloaded.python(), "-m", "pipeline", "dry_run", "preset=tiny",
               "+experiment=scaling", "restorer=unet_tiny",
               "methods=[vanilla]", "~tasks.denoise_40"]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "3 tasks x 1 seeds x 2 = 6 trainings" in done.stdout
    assert re.findall(r"Restorer: ([\d,]+) parameters", done.stdout) == ["32,875", "130,259"]


# The figure


def results(name: str, giga_macs: float | None, **psnr: list[list[float]]) -> TaskResults:
    """Return results of a task with one data set: PSNR by method, seed and image."""
    values = {key: np.array(scores) for key, scores in psnr.items()}
    images = next(iter(values.values())).shape[1]
    names = tuple(f"{number}" for number in range(images))
    data_set = DataSet(
        name, "own", "sidd", names, names, "real", False, True, 0, values, values, {}, "", {}, ""
    )
    models = {
        method: (TrainedModel(Run(name, method, 0), {"giga_macs_128": giga_macs}, {}, {}),)
        for method in values
        if method != DEGRADED
    }
    return TaskResults(name, (data_set,), models)


def test_the_figure_by_hand(params: Params, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []

    def keep(figure: Figure, dpi: int) -> tuple[bytes, int, int]:
        drawn.append(figure)
        return b"png", 1, 1

    monkeypatch.setattr(drawing, "to_png", keep)
    degraded = {DEGRADED: [[20.0, 22.0]]}
    found = scaling.scaling(params, [
        results("denoise", 1.2, vanilla=[[26.0, 28.0], [28.0, 30.0]],
                noise_space=[[30.0, 30.0], [32.0, 32.0]], **degraded),
        results("denoise_8", 0.1, vanilla=[[24.0, 26.0], [25.0, 25.0]],
                noise_space=[[26.0, 28.0], [27.0, 27.0]], **degraded),
    ])  # fmt: skip
    assert found is not None and "denoise_8, denoise" in found.caption
    best = "Best of any size on own: vanilla 28.00 dB (denoise), noise_space 31.00 dB (denoise)."
    assert best in found.caption
    panel, legend = drawn[0].axes
    curves = [line for line in panel.lines if line.get_marker() == "o"]
    assert [list(line.get_xdata()) for line in curves] == [[0.1, 1.2]] * 2  # smallest first
    assert [list(line.get_ydata()) for line in curves] == [[25.0, 28.0], [27.0, 31.0]]
    assert [line.get_ydata()[0] for line in panel.lines if line.get_linestyle() == "--"] == [21.0]
    labels = [text.get_text() for text in legend.get_legend().get_texts()]
    assert labels == ["vanilla", "noise_space", "degraded input"]


def test_one_size_or_one_without_a_measure_makes_no_figure(params: Params) -> None:
    one = results("denoise", 1.2, degraded=[[20.0]], vanilla=[[26.0]], noise_space=[[27.0]])
    unknown = results("denoise_8", None, degraded=[[20.0]], vanilla=[[2.0]], noise_space=[[2.0]])
    assert scaling.scaling(params, [one]) is None
    assert scaling.scaling(params, [one, unknown]) is None


def test_other_images_are_not_drawn_into_one_panel(params: Params) -> None:
    changed = dataclasses.replace(params.tasks["denoise_8"], draws="others")
    params = dataclasses.replace(params, tasks={**params.tasks, "denoise_8": changed})
    both = [
        results(name, size, degraded=[[20.0]], vanilla=[[26.0]], noise_space=[[27.0]])
        for name, size in (("denoise", 1.2), ("denoise_8", 0.1))
    ]
    assert scaling.scaling(params, both) is None
