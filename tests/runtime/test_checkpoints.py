"""Folders of checkpoints: only what this project wrote, and can prove, is ever deleted."""

import contextlib
import hashlib
import os
from pathlib import Path

import pytest

from pipeline.runtime.checkpoints import (
    FORMAT,
    OWN_FOLDER,
    Checkpoint,
    checkpoints_folder,
    forget_finished,
)
from pipeline.runtime.errors import UserError

MD5 = hashlib.md5(b"result").hexdigest()
LOCK = f"stages:\n  train@x:\n    outs:\n    - path: data/m\n      hash: md5\n      md5: {MD5}\n"


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that others use, too; the project lies in another, and DVC has a result of it."""
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    Path("dvc.lock").write_text(LOCK)
    Path("result").write_bytes(b"result")
    monkeypatch.setenv("PIPELINE_CHECKPOINTS", str(tmp_path / "shared"))
    monkeypatch.setenv("DVC_ROOT", str(project))
    return tmp_path / "shared"


def finished(name: str = "0123abcd") -> Path:
    """Return the folder of a training whose result DVC has."""
    with Checkpoint(name, Path("results")) as checkpoint:
        checkpoint.save(lambda path: path.write_bytes(b"state") and None)
        checkpoint.finish(Path("result"))
    return checkpoint.folder


@pytest.mark.parametrize(
    "note", ["", "0", "\n", MD5, MD5[:4], "stages", f"{FORMAT}\n0123\n{MD5}\n", b"\xff\xfe"]
)
@pytest.mark.parametrize("below", ["", OWN_FOLDER])
def test_folders_of_others_stay(shared: Path, note: str | bytes, below: str) -> None:
    """What they call 'finished' is not our note of that very training."""
    other = shared / below / "other"
    other.mkdir(parents=True)
    (other / "finished").write_bytes(note.encode() if isinstance(note, str) else note)
    (other / "thesis.tex").write_text("years of work")
    (shared / "finished").write_text(MD5)
    forget_finished()
    assert sorted(path.name for path in other.iterdir()) == ["finished", "thesis.tex"]
    assert (shared / "finished").exists()


def test_a_finished_training_is_deleted_and_nothing_beside_it(shared: Path) -> None:
    folder = finished()
    (folder.parent / "notes.txt").write_text("mine")
    other = folder.parent / "4567"
    other.mkdir()
    (other / "finished").write_text((folder / "finished").read_text())  # of another training
    forget_finished()
    assert sorted(path.name for path in folder.parent.iterdir()) == ["4567", "notes.txt"]
    assert (other / "finished").exists()
    assert folder.parent == shared / f"noise-space-{os.getuid()}"


@pytest.mark.parametrize("kind", ["file", "folder", "link"])
def test_a_folder_with_a_file_of_others_stays_whole(
    shared: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = finished()
    kept = tmp_path / "kept"
    kept.mkdir()
    (kept / "x").touch()
    if kind == "file":
        (folder / "notes.txt").write_text("mine")
    elif kind == "folder":
        (folder / "state.safetensors").unlink()
        (folder / "state.safetensors").mkdir()
    else:
        (folder / "more").symlink_to(kept)
    before = sorted(folder.iterdir())
    forget_finished()
    assert sorted(folder.iterdir()) == before and (kept / "x").exists()
    assert f"{folder}: not deleted, as it holds other files" in capsys.readouterr().err


def test_without_dvc_too(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DVC_ROOT")
    assert not finished().exists()
    (shared / OWN_FOLDER / "0123abcd").mkdir()
    (shared / OWN_FOLDER / "0123abcd" / "notes.txt").write_text("mine")
    assert (finished() / "notes.txt").exists()


def test_the_checkpoints_of_a_project_are_found_from_its_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A queue of experiments shares those of the folder in which it was started."""
    (tmp_path / "dvc.yaml").touch()
    monkeypatch.setenv("PIPELINE_CHECKPOINTS", str(tmp_path / ".checkpoints"))
    assert checkpoints_folder() == tmp_path / ".checkpoints"
    monkeypatch.setenv("PIPELINE_CHECKPOINTS", "")
    assert checkpoints_folder() == Path(".checkpoints")


def test_a_kill_while_saving_leaves_the_state_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every change of a file: a state that was saved is found, and it is the last or the one
    before."""
    monkeypatch.chdir(tmp_path)
    replaced = Path.replace

    def killed_at(call: int) -> bytes:
        calls = 0

        def replace(self: Path, target: Path) -> Path:
            nonlocal calls
            calls += 1
            if calls == call:
                raise KeyboardInterrupt
            return replaced(self, target)

        name = f"killed{call}"
        with Checkpoint(name, Path("results")) as checkpoint:
            for state in (b"1", b"2"):
                checkpoint.save(lambda path, state=state: path.write_bytes(state) and None)  # type: ignore[misc]
            with monkeypatch.context() as patch:
                patch.setattr(Path, "replace", replace)
                with contextlib.suppress(KeyboardInterrupt):
                    checkpoint.save(lambda path: path.write_bytes(b"3") and None)
        with Checkpoint(name, Path("results")) as checkpoint:
            return checkpoint.path.read_bytes()

    assert [killed_at(call) for call in (1, 2, 3, 4)] == [b"2", b"2", b"2", b"3"]


def test_a_lock_of_another_user_is_named(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Path.open

    def open_(self: Path, *given: str) -> object:
        if self.name == "lock":
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *given)

    monkeypatch.setattr(Path, "open", open_)
    with pytest.raises(UserError, match=r"another user's.*set PIPELINE_CHECKPOINTS to a folder of"):
        Checkpoint("0123", Path("results"))
    forget_finished()


def test_a_place_that_can_be_no_folder_is_named(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared.mkdir()
    (shared / "file").touch()
    for place in (shared / "file", Path("/proc")):
        monkeypatch.setenv("PIPELINE_CHECKPOINTS", str(place))
        with pytest.raises(UserError, match=r"cannot be written to .* set PIPELINE_CHECKPOINTS to"):
            Checkpoint("0123", Path("results"))
