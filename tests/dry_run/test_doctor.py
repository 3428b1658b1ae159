"""One page about a machine or clone: each fault that is planted turns its line into a remedy."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet

from pipeline.config.read import check
from pipeline.dry_run import doctor
from pipeline.dry_run.doctor import Finding, examine
from pipeline.workflow.one_snakemake import RUNNING

ROOT = Path(__file__).parents[2]


@pytest.fixture
def found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: dict[str, Any]
) -> Callable[..., dict[str, Finding]]:
    """Examine a clone of a project without stages; return the lines by what they are about."""
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    (project / "dvc.yaml").write_text("stages: {}\n")
    for person in ("GIT_AUTHOR", "GIT_COMMITTER"):
        monkeypatch.setenv(f"{person}_NAME", "test")
        monkeypatch.setenv(f"{person}_EMAIL", "test@localhost")
    monkeypatch.delenv("PIPELINE_CHECKPOINTS", raising=False)
    monkeypatch.delenv("PIPELINE_GRAPH", raising=False)
    monkeypatch.setenv("DVC_SITE_CACHE_DIR", str(tmp_path / "database"))
    for command in ("git init -q", "dvc init -q"):
        subprocess.run(command.split(), check=True)
    answers = tmp_path / "bin" / "sinfo"  # a machine may have Slurm's commands and no controller
    answers.parent.mkdir()
    answers.write_text("#!/bin/sh\n")
    answers.chmod(0o755)
    monkeypatch.setenv("PATH", f"{answers.parent}{os.pathsep}{os.environ['PATH']}")

    def examined(**changed: Any) -> dict[str, Finding]:
        for section, more in changed.items():
            values[section] |= more
        return {finding.what: finding for finding in examine(check(values))}

    return examined


def test_all_is_well(found: Callable[..., dict[str, Finding]]) -> None:
    assert [str(finding) for finding in found().values() if not finding.well] == []
    assert str(found()["threads"]).startswith("ok   threads ")


def test_slurm_without_its_controller_is_told(
    found: Callable[..., dict[str, Finding]], tmp_path: Path
) -> None:
    sinfo = tmp_path / "bin" / "sinfo"
    sinfo.write_text("#!/bin/sh\necho no route >&2\nexit 1\n")
    (tmp_path / "bin" / "sbatch").symlink_to(sinfo)
    told = str(found()["Slurm"])
    assert told.startswith("fix ") and "no route; is slurmctld up?" in told


def hold_turn() -> None:
    RUNNING.parent.mkdir(parents=True)
    file = RUNNING.open("w")
    fcntl.flock(file, fcntl.LOCK_EX)
    file.write("7 on here\nplan")
    file.flush()
    KEPT.append(file)


KEPT: list[Any] = []  # open files, until the process ends


def hold_dvc() -> None:
    info = {"pid": os.getpid(), "cmd": "dvc repro"}
    Path(".dvc/tmp").mkdir(exist_ok=True)
    Path(".dvc/tmp/rwlock").write_text(json.dumps({"write": {"a": info}, "read": {}}))


def leave_lock() -> None:
    Path(".snakemake/locks").mkdir(parents=True)
    Path(".snakemake/locks/0.input.lock").touch()


FAULTS: dict[str, tuple[Callable[[], object], str]] = {
    "a Snakemake at work": (hold_turn, "fix  locks        Snakemake runs here as process 7"),
    "a DVC at work": (hold_dvc, f"fix  locks        held by process {os.getpid()} (dvc repro)"),
    "a killed Snakemake": (leave_lock, "fix  locks        a Snakemake was killed"),
    "no clone": (lambda: shutil.rmtree(".git"), "fix  clone        this folder is no git clone"),
    "data elsewhere": (lambda: Path("data").symlink_to("/"), "fix  outputs      data: is a symb"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_gets_a_remedy(name: str, found: Callable[..., dict[str, Finding]]) -> None:
    plant, told = FAULTS[name]
    plant()
    assert any(str(finding).startswith(told) for finding in found().values())


@pytest.mark.parametrize(
    ("variable", "what"),
    [("PIPELINE_ARCHIVES", "archives"), ("PIPELINE_CHECKPOINTS", "checkpoints")],
)
def test_a_misspelt_folder_is_named(
    variable: str, what: str, found: Callable[..., dict[str, Finding]], monkeypatch: Any
) -> None:
    monkeypatch.setenv(variable, "/nowhere/archvies")
    assert str(found()[what]).endswith(f"{variable}: found /nowhere/archvies, expected a folder")
    assert not Path("/nowhere").exists()


def test_every_python_of_the_project_is_well(
    found: Callable[..., dict[str, Finding]], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    allowed = SpecifierSet(project["requires-python"])
    for minor in range(9, 18):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "version_info", (3, minor, 0))
            assert found()["python"].well == (f"3.{minor}.0" in allowed), minor


def test_the_page_is_printed_where_torch_does_not_fit() -> None:
    """Below 'ulimit -v' the dynamic loader fails; the doctor says so in one line of its page."""
    code = "import sys; import pipeline.dry_run.doctor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_packages_that_hide_ours_are_named(
    tmp_path: Path, found: Callable[..., dict[str, Finding]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "theirs").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "theirs"))
    (tmp_path / "theirs" / "another.py").touch()
    assert found()["python"].well
    (tmp_path / "theirs" / "yaml.py").touch()
    assert f"PYTHONPATH: {tmp_path}/theirs has another yaml" in found()["python"].text


def test_a_database_where_the_project_was_before_is_named(
    tmp_path: Path, found: Callable[..., dict[str, Finding]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queue has noted the full path; the project was moved."""
    monkeypatch.delenv("DVC_SITE_CACHE_DIR")
    before = tmp_path / "before" / ".cache" / "dvc"
    Path(".dvc/config.local").write_text(f"[core]\n    site_cache_dir = {before}\n")
    line = str(found()["cache"])
    assert line.startswith(f"fix  cache        {before}") and "--unset core.site_cache_dir" in line
    (tmp_path / "project").rename(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path / "elsewhere")
    here = tmp_path / "elsewhere" / ".cache" / "dvc"
    Path(".dvc/config.local").write_text(f"[core]\n    site_cache_dir = {here}\n")
    assert found()["cache"].well


def test_settings_too_large_for_the_machine(
    found: Callable[..., dict[str, Finding]], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = shutil.disk_usage(".")._replace(free=10**6)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: small)
    lines = found(train={"threads": 1000, "devices": 4}, resources={"mem_mb": 10**9, "gpu": 4})
    bad = {what for what, finding in lines.items() if not finding.well}
    assert {"disk", "temporary", "threads", "memory", "GPUs"} <= bad
    assert "train.devices=" in lines["GPUs"].text and "expected" not in lines["disk"].text


def test_a_folder_that_programs_cannot_bear(
    tmp_path: Path, found: Callable[..., dict[str, Finding]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a:b", "a$b", 'a"b', "{a}", "a#b"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        assert not found()["folder"].well, name
    for name in ("a b", "a'b", "ä", "a%b"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        assert found()["folder"].well, name
