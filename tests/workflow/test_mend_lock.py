"""Lock files after a kill: what is set aside keeps its name, and who is waited for is named."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from zc.lockfile import LockFile

from pipeline.runtime.errors import UserError
from pipeline.workflow.mend_lock import claims, release_dead, set_aside

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone without stages."""
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text("stages: {}\n")
    for command in ("git init -q", "dvc init -q"):
        subprocess.run(command.split(), check=True)
    return tmp_path


def test_a_second_damaged_lock_file_replaces_none(tmp_path: Path) -> None:
    lock = tmp_path / "dvc.lock"
    for number in ("1", "2", "3"):
        lock.write_text(f"{number}: [half")
        assert set_aside(lock) and not lock.exists()
    kept = {path.name: path.read_text()[0] for path in tmp_path.iterdir()}
    assert kept == {
        "dvc.lock.damaged": "1", "dvc.lock.damaged.2": "2", "dvc.lock.damaged.3": "3",
    }  # fmt: skip


def test_who_is_waited_for_is_named(project: Path) -> None:
    held = LockFile(".dvc/tmp/lock")
    waiting = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "mend_lock"], stderr=subprocess.PIPE, text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "DVC_SITE_CACHE_DIR": str(project / "cache")},
    )  # fmt: skip
    assert waiting.stderr is not None
    told = waiting.stderr.readline()
    assert told.startswith("waiting for another dvc, which holds .dvc/tmp/lock; if none is at work")
    assert waiting.poll() is None
    held.close()
    assert waiting.wait() == 0


def test_only_living_processes_hold_something(tmp_path: Path) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    info = [{"pid": pid, "cmd": "dvc repro"} for pid in (os.getpid(), ended.pid)]
    path = tmp_path / "rwlock"
    path.write_text(f'{{"write": {{"a": {info[0]}}}, "read": {{"b": {info}}}}}'.replace("'", '"'))
    assert claims(path) == [f"process {os.getpid()} (dvc repro)"]
    assert claims(tmp_path / "none") == []


@pytest.mark.parametrize(
    "left", [b"", b'{"write": {"a": {"pid"', b"[]", b'{"write": {"a": 5}}', b"\xff\xfe"]
)
def test_claims_that_dvc_cannot_read_are_named_and_set_aside(tmp_path: Path, left: bytes) -> None:
    """A kill or a full disk leaves half of them."""
    path = tmp_path / "rwlock"
    path.write_bytes(left)
    with pytest.raises(UserError, match="rwlock: DVC cannot read it; python -m pipeline mend_lock"):
        claims(path)
    release_dead(path)
    assert claims(path) == []
    assert {kept.name: kept.read_bytes() for kept in tmp_path.iterdir()} == {"rwlock.damaged": left}
