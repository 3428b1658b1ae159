"""Where a training goes on after being stopped: one folder each, held by one process.

Checkpoints lie outside DVC's outputs, because DVC deletes outputs before a run. A finished one
stays until DVC has the result: if all is killed before, the result is written again at once.
Every state is held against the hash that was noted when it was saved; the one before is kept, too.
"""

import contextlib
import hashlib
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from pipeline.runtime.errors import UserError
from pipeline.runtime.files import sha256_of, write_text
from pipeline.runtime.locks import lock, this_process
from pipeline.runtime.paths import STATE_FILE

CHECKPOINTS_VARIABLE = "PIPELINE_CHECKPOINTS"
"""Environment variable: another folder for checkpoints, for runs in temporary copies."""
DEFAULT_FOLDER = Path(".checkpoints")
OWN_FOLDER = f"noise-space-{os.getuid()}"
"""Sub-folder for this project and user of a folder that others may use, too."""
WAITING_S = 0.5
"""How often an experiment looks whether another has finished what both are to train."""

LOCK = "lock"
PREVIOUS = "previous.safetensors"
"""The state that was saved before the last one."""
NEW = "new.safetensors"
"""A state while it is being saved."""
HASHES = "hashes"
"""SHA-256 of the last states, a line each."""
DAMAGED = ".damaged"
"""Ends the name of a state that was set aside."""
FINISHED = "finished"
"""File in a finished training's folder: FORMAT, the folder's name, and the MD5 of the result."""
FORMAT = "finished training of noise-space, format 1"
OURS = {
    LOCK, STATE_FILE, PREVIOUS, NEW, HASHES, FINISHED, STATE_FILE + DAMAGED, PREVIOUS + DAMAGED,
    *(f".{name}.partial" for name in (NEW, HASHES, FINISHED)),
}  # fmt: skip
"""All that is ever written into the folder of a checkpoint."""


class Checkpoint:
    """The one checkpoint of a training, which one process holds within the block."""

    def __init__(self, name: str, results: Path, holds: bool = True) -> None:
        """Lock the checkpoint of that name and the folder of the results.

        A follower of the process that ``holds`` them only reads. An experiment of DVC, of which a
        queue runs several at once, waits for another that trains the same thing; the result of that
        one is then found here, if DVC has not taken it over yet. A damaged state is set aside.

        Raises:
            UserError: another process is training the same thing, or writes to the same folder, or
                the folder belongs to another user.
        """
        root = checkpoints_folder()
        self.folder = root / name
        self.path = self.folder / STATE_FILE
        place = hashlib.sha256(str(results.absolute()).encode()).hexdigest()[:16]
        # the second at one place, wherever checkpoints are: results are the project's
        self._locks = [self.folder / LOCK, DEFAULT_FOLDER / f"{place}.lock"] if holds else []
        self._held: list[IO[str]] = []
        waits = "DVC_EXP_NAME" in os.environ
        try:
            for path, what in zip(self._locks, (self.folder, results), strict=False):
                self._held.append(_hold(path, what, waits and what == self.folder))
        except UserError:
            for file in self._held:
                file.close()
            raise
        if holds:
            self._set_damaged_aside()

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, *reason: object) -> None:
        if self._locks:
            self._locks[1].unlink(missing_ok=True)
        for file in self._held:
            file.close()

    def save(self, write: Callable[[Path], None]) -> None:
        """Save the state that ``write`` writes to a path; keep the one before beside it.

        Raises:
            UserError: the disk is full; the state before is kept.
        """
        with contextlib.suppress(FileNotFoundError):
            self.path.replace(self.folder / PREVIOUS)
        new = self.folder / NEW
        new.unlink(missing_ok=True)  # of a killed one, or of a full disk
        write(new)
        # with those before: a kill between the next two lines leaves the previous state as the last
        hashes = "\n".join([sha256_of(new), *self._hashes()[:2], ""])
        try:
            write_text(self.folder / HASHES, hashes)
        except OSError as error:
            raise UserError(
                f"{self.folder}: cannot be written to ({error.strerror}); free some disk space and"
                " run the same command again"
            ) from None
        new.replace(self.path)

    def finish(self, result: Path) -> None:
        """The result is written: keep the checkpoint until DVC has it, without DVC delete it."""
        if "DVC_ROOT" not in os.environ:
            _remove(self.folder)
            return
        with result.open("rb") as file:
            digest = hashlib.file_digest(file, "md5").hexdigest()
        write_text(self.folder / FINISHED, _note(self.folder, digest))

    def _hashes(self) -> list[str]:
        try:
            return (self.folder / HASHES).read_text(encoding="utf-8", errors="replace").split()
        except FileNotFoundError:
            return []

    def _set_damaged_aside(self) -> None:
        """Let ``path`` be the last state that is as it was saved, if there is one."""
        known = self._hashes()
        for path in (self.path, self.folder / PREVIOUS):
            if not path.is_file():
                continue
            if sha256_of(path) in known:
                path.replace(self.path)
                return
            aside = path.with_name(path.name + DAMAGED)
            path.replace(aside)
            print(
                f"{path}: damaged, found other bytes than were saved; set aside as {aside.name},"
                " going on from the state before, if there is one",
                file=sys.stderr, flush=True,
            )  # fmt: skip


def checkpoints_folder() -> Path:
    """Return the folder of this project's and this user's checkpoints.

    A folder that the environment names may be anybody's, unless it is that of a project.
    """
    given = os.environ.get(CHECKPOINTS_VARIABLE)
    if not given:
        return DEFAULT_FOLDER
    folder = Path(given)
    of_project = folder.name == DEFAULT_FOLDER.name and (folder.parent / "dvc.yaml").is_file()
    return folder if of_project else folder / OWN_FOLDER


def forget_finished() -> None:
    """Delete the checkpoints of all trainings whose results are in dvc.lock."""
    finished = list(checkpoints_folder().glob(f"*/{FINISHED}"))
    kept = Path("dvc.lock")
    if not finished or not kept.is_file():
        return
    text = kept.read_text(encoding="utf-8", errors="replace")
    kept_by_dvc = set(re.findall(r"^\s*md5: (\S+)$", text, re.MULTILINE))
    for path in finished:
        # another stage was faster, or has waited for this training and takes it over; or it is not
        # this user's, and so not this project's
        with contextlib.suppress(OSError, UserError):
            note, folder = path.read_text(encoding="utf-8", errors="replace"), path.parent
            if any(note == _note(folder, digest) for digest in kept_by_dvc):
                with _hold(folder / LOCK, folder):
                    _remove(folder)


def _note(folder: Path, digest: str) -> str:
    return f"{FORMAT}\n{folder.name}\n{digest}\n"


def _remove(folder: Path) -> None:
    """Delete the folder of a checkpoint, unless it holds anything that no checkpoint has."""
    found = list(folder.iterdir())
    if any(path.name not in OURS or path.is_dir() for path in found):
        print(f"{folder}: not deleted, as it holds other files", file=sys.stderr, flush=True)
        return
    for path in found:
        path.unlink()
    folder.rmdir()


def _hold(path: Path, what: Path, waits: bool = False) -> IO[str]:
    told = False
    while True:
        file = _open(path)
        if not lock(file.fileno(), path):
            file.seek(0)
            holder = f"process {file.read().strip() or 'unknown'} is training this already"
            file.close()
            if not waits:
                raise UserError(f"{what}: {holder}; wait for it or stop it") from None
            if not told:
                print(f"{what}: {holder}; waiting for it", flush=True)
            told = True
            time.sleep(WAITING_S)
            continue
        with contextlib.suppress(FileNotFoundError):
            # else its last holder has deleted it meanwhile: nobody else would find it locked
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                break
        file.close()
    file.truncate(0)
    file.write(this_process())
    file.flush()
    return file


def _open(path: Path) -> IO[str]:
    for attempt in range(3):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return path.open("a+")
        except OSError as error:
            deleted = isinstance(error, FileNotFoundError)  # with its folder, by its last holder
            if deleted and attempt < 2:
                continue
            if not deleted and not isinstance(error, PermissionError | NotADirectoryError):
                raise
            raise UserError(
                f"{path}: cannot be written to ({error.strerror}); it is another user's, no folder,"
                f" or read-only: set {CHECKPOINTS_VARIABLE} to a folder of yours"
            ) from None
    raise AssertionError("the last attempt returns or raises")
