"""What DVC, Snakemake and libraries keep lies in the project: not in the home, /var or /tmp."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.workspace import ROOT, clone, environment, stages_run

pytestmark = pytest.mark.graph

KEPT = ("PATH", "OMP_NUM_THREADS", "GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME",
        "GIT_COMMITTER_EMAIL")  # fmt: skip


def test_the_tiny_graph_leaves_nothing_outside(one_task: Path, tmp_path: Path) -> None:
    workspace = clone(one_task, tmp_path / "work")
    home, temporary = tmp_path / "home", tmp_path / "tmp"
    home.mkdir()
    temporary.mkdir()
    values = {name: environment()[name] for name in KEPT if name in environment()}
    values |= {"HOME": str(home), "TMPDIR": str(temporary)}
    only = ("env", "-i", *(f"{name}={value}" for name, value in values.items()))

    assert "report" in stages_run(workspace.succeed(*only, "dvc", "repro"))
    workspace.succeed(
        *only, "python", "-m", "pipeline", "compose", "methods.noise_space.margin=0.2"
    )
    output = workspace.succeed(*only, "snakemake", "--cores", "2")
    assert "train@denoise-noise_space-0" in stages_run(output)
    workspace.succeed(*only, "snakemake", "-n")
    workspace.commit("results")
    apart = ("--temp", "-S", "methods.noise_space.margin=0.3")
    assert "Running stage" in workspace.succeed(*only, "dvc", "exp", "run", *apart)

    assert found(home) == [] and found(temporary) == []
    assert {path.name for path in tmp_path.iterdir()} == {"work", "home", "tmp"}
    caches = workspace.folder / ".cache"
    # DVC's names of a project and its user
    tokens = [folder.name for folder in (caches / "dvc" / "repo").iterdir()]
    assert tokens
    outside = ("/var/tmp", "/var/cache")
    assert not any(Path(var, "dvc/repo", name).exists() for var in outside for name in tokens)
    assert any((caches / "matplotlib").iterdir())


def found(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in sorted(folder.rglob("*"))]


def test_where_somebody_has_said_it_is_kept(tmp_path: Path) -> None:
    code = "import pipeline, matplotlib; print(matplotlib.get_configdir())"
    for told, expected in (({"MPLCONFIGDIR": str(tmp_path)}, tmp_path),
                           ({}, ROOT / ".cache" / "matplotlib")):  # fmt: skip
        values = {k: v for k, v in os.environ.items() if k != "MPLCONFIGDIR"}
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=values | told,
                              capture_output=True, text=True, check=True)  # fmt: skip
        assert done.stdout.strip() == str(expected)
