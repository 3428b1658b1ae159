"""Where a training goes on after being stopped: one folder each, held by one process.

Checkpoints lie outside DVC's outputs, because DVC deletes outputs before a run. A finished one
stays until DVC has the result: if all is killed before, the result is written again at once.
"""

import contextlib
import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import IO

from pipeline.runtime.errors import UserError
from pipeline.runtime.files import write_text
from pipeline.runtime.locks import lock, this_process
from pipeline.runtime.paths import STATE_FILE

CHECKPOINTS_VARIABLE = "PIPELINE_CHECKPOINTS"
"""Environment variable: another folder for checkpoints, for runs in temporary copies."""
DEFAULT_FOLDER = Path(".checkpoints")
WAITING_S = 0.5
"""How often an experiment looks whether another has finished what both are to train."""
FINISHED = "finished"
"""File in a finished training's folder: the MD5 of its result, as DVC notes it in dvc.lock."""


class Checkpoint:
    """The one checkpoint of a training, which one process holds within the block."""

    def __init__(self, name: str, results: Path, holds: bool = True) -> None:
        """Lock the checkpoint of that name and the folder of the results.

        A follower of the process that ``holds`` them only reads. An experiment of DVC, of which a
        queue runs several at once, waits for another that trains the same thing; the result of that
        one is then found here, if DVC has not taken it over yet.

        Raises:
            UserError: another process is training the same thing, or writes to the same folder.
        """
        root = checkpoints_folder()
        self.folder = root / name
        self.path = self.folder / STATE_FILE
        place = hashlib.sha256(str(results.absolute()).encode()).hexdigest()[:16]
        # the second at one place, wherever checkpoints are: results are the project's
        self._locks = [self.folder / "lock", DEFAULT_FOLDER / f"{place}.lock"] if holds else []
        self._held: list[IO[str]] = []
        waits = "DVC_EXP_NAME" in os.environ
        try:
            for path, what in zip(self._locks, (self.folder, results), strict=False):
                self._held.append(_hold(path, what, waits and what == self.folder))
        except UserError:
            for file in self._held:
                file.close()
            raise

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, *reason: object) -> None:
        if self._locks:
            self._locks[1].unlink(missing_ok=True)
        for file in self._held:
            file.close()

    def finish(self, result: Path) -> None:
        """The result is written: keep the checkpoint until DVC has it, without DVC delete it."""
        if "DVC_ROOT" not in os.environ:
            shutil.rmtree(self.folder, ignore_errors=True)
            return
        with result.open("rb") as file:
            write_text(self.folder / FINISHED, hashlib.file_digest(file, "md5").hexdigest())


def checkpoints_folder() -> Path:
    """Return the folder of all checkpoints."""
    return Path(os.environ.get(CHECKPOINTS_VARIABLE, DEFAULT_FOLDER))


def forget_finished() -> None:
    """Delete the checkpoints of all trainings whose results are in dvc.lock."""
    finished = list(checkpoints_folder().glob(f"*/{FINISHED}"))
    kept = Path("dvc.lock")
    if not finished or not kept.is_file():
        return
    kept_by_dvc = kept.read_text(encoding="utf-8", errors="replace")
    for note in finished:
        # another stage was faster, or has waited for this training and takes it over
        with contextlib.suppress(FileNotFoundError, UserError):
            if note.read_text(encoding="utf-8") in kept_by_dvc:
                with _hold(note.parent / "lock", note.parent):
                    shutil.rmtree(note.parent, ignore_errors=True)


def _hold(path: Path, what: Path, waits: bool = False) -> IO[str]:
    told = False
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+")
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
