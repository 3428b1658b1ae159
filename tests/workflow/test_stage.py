"""Stages as commands: options, the cost record, and what a user reads after a mistake."""

import errno
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from pipeline.config.params import Params
from pipeline.config.read import check
from pipeline.runtime.errors import UserError
from pipeline.runtime.paths import raw
from pipeline.sources import bundled
from pipeline.workflow.stage import run
from tests.helpers import preloaded

ROOT = Path(__file__).parents[2]

HDF5_FULL = """[Errno None] Can't write data (file write failed: time = Mon Nov 23 12:33:18 2026
, filename = 'x.h5', file descriptor = 3, errno = 28, error message = 'No space left on device')"""

PARENT = """
import subprocess, sys
code = ("import time; from pipeline.workflow.stage import _end_with_dvc as e;"
        " e(); print(1); time.sleep(60)")
child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
child.wait()
"""


@pytest.fixture
def workdir(tmp_path: Path, values: dict[str, Any]) -> Path:
    """A folder that holds nothing but params.yaml."""
    folder = tmp_path / "work"
    folder.mkdir()
    OmegaConf.save(values, folder / "params.yaml")
    return folder


def stage(folder: Path, name: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run a stage script as a user does, from a folder of its own."""
    return subprocess.run(
        [preloaded.python(), "-m", f"stages.{name}", *options],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line of a user's mistake."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1, done.stderr
    assert done.stdout == ""
    return done.stderr.removeprefix("error: ").rstrip("\n")


# In this process


@pytest.fixture
def called(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int | str | None, str]]:
    """Run a function as a stage named some.py; return its exit status and what it told."""

    def call(main: Callable[..., None], *options: str) -> tuple[int | str | None, str]:
        monkeypatch.chdir(workdir)
        monkeypatch.delenv("DVC_ROOT", raising=False)
        monkeypatch.setattr(sys, "argv", ["/anywhere/stages/some.py", *options])
        status: int | str | None = 0
        try:
            run(main)
        except SystemExit as exit:
            status = exit.code
        return status, capsys.readouterr().err

    return call


def test_options_are_the_parameters_of_main(called: Callable, values: dict[str, Any]) -> None:
    given = []

    def main(params: Params, task: str, method: str, seed: int) -> None:
        given.append((params, task, method, seed))

    options = ("--seed", "0", "--task", "derain", "--method", "vanilla")
    assert called(main, *options) == (0, "")
    assert given == [(check(values), "derain", "vanilla", 0)]


def test_the_cost_is_recorded(
    called: Callable, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")

    def main(params: Params, task: str, method: str, seed: int) -> None:
        time.sleep(0.25)

    called(main, "--task", "derain", "--method", "vanilla", "--seed", "0")
    (path,) = (workdir / "logs" / "costs").iterdir()
    assert path.name == "some@derain-vanilla-0.json"
    record = json.loads(path.read_text())
    assert record["stage"] == "some@derain-vanilla-0"
    assert 0.2 <= record["wall_s"] < 5
    assert 20 < record["peak_memory_mib"] < 20_000
    assert set(record) == {"stage", "slurm_job", "wall_s", "peak_memory_mib", "peak_gpu_memory_mib"}
    assert record["slurm_job"] == "77"
    assert record["peak_gpu_memory_mib"] is None, "nothing here used a GPU"


@pytest.mark.parametrize(
    "follower",
    [{"LOCAL_RANK": "1"}, {"SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "0"}],
)
def test_of_several_processes_the_first_alone_records(
    called: Callable, workdir: Path, monkeypatch: pytest.MonkeyPatch, follower: dict[str, str]
) -> None:
    for name, value in follower.items():
        monkeypatch.setenv(name, value)
    assert called(lambda params: None) == (0, "")
    assert not (workdir / "logs").exists()
    for name in follower:
        monkeypatch.setenv(name, "0")
    assert called(lambda params: None) == (0, "")
    assert (workdir / "logs" / "costs" / "some.json").is_file()


def test_a_stage_without_options_has_a_plain_name(called: Callable, workdir: Path) -> None:
    def main(params: Params) -> None:
        pass

    assert called(main) == (0, "")
    assert json.loads((workdir / "logs" / "costs" / "some.json").read_text())["stage"] == "some"


@pytest.mark.parametrize(
    ("option", "value", "known"),
    [
        ("source", "spa", "skimage"),
        ("task", "dehaze", "denoise, derain, deblur"),
        ("method", "Vanilla", "vanilla, noise_space"),
    ],
)
def test_an_unknown_name_is_told(called: Callable, option: str, value: str, known: str) -> None:
    def source(params: Params, source: str) -> None:
        raise AssertionError("must not run")

    def task(params: Params, task: str) -> None:
        raise AssertionError("must not run")

    def method(params: Params, method: str) -> None:
        raise AssertionError("must not run")

    status, told = called(locals()[option], f"--{option}", value)
    assert status == 2
    assert told == (f"error: --{option}: found {value!r}, expected one of params.yaml's: {known}\n")


def test_an_unknown_seed_is_told(called: Callable) -> None:
    def main(params: Params, seed: int) -> None:
        raise AssertionError("must not run")

    assert called(main, "--seed", "7") == (
        2,
        "error: --seed: found 7, expected one of params.yaml's: 0\n",
    )
    status, told = called(main, "--seed", "x")
    assert status == 2 and "--seed" in told and "'x'" in told
    status, told = called(main)
    assert status == 2 and "--seed" in told


def test_a_mistake_leaves_no_cost(called: Callable, workdir: Path) -> None:
    def main(params: Params) -> None:
        raise UserError("photo.png: not an image")

    assert called(main) == (2, "error: photo.png: not an image\n")
    assert not (workdir / "logs").exists()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(HDF5_FULL),
    ],
    ids=["disk", "quota", "HDF5"],
)
def test_a_full_disk_is_told(called: Callable, error: OSError) -> None:
    def main(params: Params) -> None:
        raise error

    status, told = called(main)
    assert status == 2
    assert told.startswith("error: disk full while writing (")
    assert told.endswith("free space and run the command again\n")
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (MemoryError(), 2, "error: not enough memory (MemoryError); end other programs"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 2, "error: not enough memory"),
        (ImportError("libtorch.so: failed to map segment from shared object"), 2, "not enough mem"),
        (PermissionError(13, "Permission denied", "data/x"), 2, "read-only or another user's"),
        (IsADirectoryError(21, "Is a directory", "logs/x"), 2, "'logs/x': move away what is there"),
        (ModuleNotFoundError("No module", name="numpy"), 2, "error: numpy: not installed for"),
        (KeyError("getpwuid(): uid not found: 54321"), 2, "error: this account has no name or no"),
        (RuntimeError("could not determine the home directory for '~'"), 2, "export USER=$(id -u)"),
        (sqlite3.OperationalError("disk is full"), 2, "error: DVC's database (disk is full): free"),
        (KeyboardInterrupt(), 130, "error: interrupted; finished results are whole"),
    ],
)
def test_what_the_machine_does_is_told_in_one_line(
    called: Callable, error: BaseException, status: int, told: str
) -> None:
    def main(params: Params) -> None:
        raise error

    found, printed = called(main)
    assert found == status and told in printed and printed.count("\n") == 1


def test_an_interruption_while_modules_are_imported_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("")
    (tmp_path / "h5py.py").write_text("raise KeyboardInterrupt")
    done = subprocess.run(
        [sys.executable, "-m", "stages.synthesize", "--task", "denoise"], cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode != 0
    assert done.stderr.startswith("error: interrupted; ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("fault", [ValueError("a fault"), KeyError("a"), OSError(errno.EIO, "x")])
def test_a_fault_of_the_program_keeps_its_traceback(called: Callable, fault: Exception) -> None:
    def main(params: Params) -> None:
        raise fault

    with pytest.raises(type(fault)):
        called(main)


# The scripts


def test_a_stage_that_succeeds_says_nothing(workdir: Path) -> None:
    done = stage(workdir, "download", "--source", "skimage")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [path.name for path in (workdir / raw("skimage")).iterdir()] == ["photographs.zip"]
    assert (workdir / "logs" / "costs" / "download@skimage.json").is_file()


def test_an_unknown_source_is_told(workdir: Path) -> None:
    told = error_of(stage(workdir, "download", "--source", "skimge"))
    assert told == "--source: found 'skimge', expected one of params.yaml's: skimage"
    assert [path.name for path in workdir.iterdir()] == ["params.yaml"]


def test_missing_params_are_told(tmp_path: Path) -> None:
    told = error_of(stage(tmp_path, "prepare", "--source", "skimage"))
    assert told == "params.yaml: not found; write it with 'python -m pipeline compose'"
    assert not list(tmp_path.iterdir())


def test_a_misspelt_key_is_told(workdir: Path, values: dict[str, Any]) -> None:
    values["train"]["leraning_rate"] = values["train"].pop("learning_rate")
    OmegaConf.save(values, workdir / "params.yaml")
    told = error_of(stage(workdir, "synthesize", "--task", "denoise"))
    assert told.startswith("train.leraning_rate: unknown key, did you mean 'learning_rate'?")


TRAINED = ("--task", "denoise", "--method", "vanilla", "--seed", "0")


@pytest.mark.parametrize(
    ("name", "options", "missing"),
    [
        ("prepare", ("--source", "skimage"), "data/raw/skimage/photographs.zip"),
        ("synthesize", ("--task", "denoise"), "data/prepared/skimage/synthetic.h5"),
        ("evaluate_degraded", ("--task", "denoise"), "data/tasks/denoise/test.h5"),
        ("train", TRAINED, "data/tasks/denoise/synthetic.h5"),
        ("evaluate", TRAINED, "data/models/denoise/vanilla-0/model.safetensors"),
    ],
)
def test_a_missing_input_is_told(
    workdir: Path, name: str, options: tuple[str, ...], missing: str
) -> None:
    told = error_of(stage(workdir, name, *options))
    assert told.startswith(f"{missing}: not found")
    assert "dvc repro" in told


def test_a_full_disk_stops_a_download(small_disk: Path, workdir: Path) -> None:
    """The photographs take four MiB."""
    shutil.copy(workdir / "params.yaml", small_disk)
    told = error_of(stage(small_disk, "download", "--source", "skimage"))
    assert "disk full" in told and "free space" in told
    assert not list((small_disk / raw("skimage")).iterdir())


def test_a_small_disk_stops_a_preparation(
    small_disk: Path, workdir: Path, values: dict[str, Any]
) -> None:
    shutil.copy(workdir / "params.yaml", small_disk)
    bundled.download(check(values).sources["skimage"], workdir)
    (small_disk / "data").mkdir()
    (small_disk / "data" / "raw").symlink_to(workdir)
    (workdir / "skimage").symlink_to(workdir)
    told = error_of(stage(small_disk, "prepare", "--source", "skimage"))
    # of the larger photographs, three bytes a pixel
    assert told.startswith("data/prepared/skimage: 1 MiB free, 5 MiB needed; free some disk space")
    assert not list((small_disk / "data" / "prepared" / "skimage").iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")
@pytest.mark.parametrize("under_dvc", [True, False])
def test_under_dvc_a_stage_ends_with_its_parent(under_dvc: bool) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DVC_ROOT": str(ROOT)}
    if not under_dvc:
        del environment["DVC_ROOT"]
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT], env=environment, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + (5 if under_dvc else 0.3)
    while _is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    survived = _is_alive(child)
    if survived:
        os.kill(child, signal.SIGKILL)
    assert survived != under_dvc


def _is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
