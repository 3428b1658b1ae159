"""Put right what a kill leaves of DVC's lock files, and DVC itself does not.

DVC rewrites dvc.lock in place after every stage. A kill at that moment, between two stages, leaves
half a file, which DVC then refuses to read. Nothing else is lost: without the file DVC looks every
stage up in its run cache and runs none again that was finished.

While a stage runs, DVC notes its own process number in ``.dvc/tmp/rwlock``. Where nobody collects
dead processes (many containers), a killed one keeps its number, and DVC takes it for alive.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from pipeline.runtime.errors import UserError
from pipeline.workflow.project import repository

LOCK = Path("dvc.lock")
CLAIMS = Path(".dvc/tmp/rwlock")
SETTLE_S = 0.5
"""DVC writes its claims in place: half a file may be whole in a moment."""


def mend() -> bool:
    """Mend both files; return whether dvc.lock was set aside. Waits for a DVC at work.

    Raises:
        UserError: this is no clone, or cannot be written to.
    """
    from dvc.lock import LockError

    with repository() as repo:
        try:
            lock = repo.lock
            lock.lock()
        except LockError:
            print(
                "waiting for another dvc, which holds .dvc/tmp/lock; if none is at work on any"
                " machine: rm .dvc/tmp/lock",
                file=sys.stderr, flush=True,
            )  # fmt: skip
            lock = type(repo)(_wait_for_lock=True).lock
            lock.lock()
        try:  # else half a file may be one that DVC is writing
            release_dead()
            return set_aside()
        finally:
            lock.unlock()


def claims(path: Path = CLAIMS) -> list[str]:
    """Return the living processes that hold something, as DVC notes them.

    Raises:
        UserError: DVC cannot read its notes.
    """
    import psutil

    held = _notes(path)
    if held is None:
        raise UserError(f"{path}: DVC cannot read it; python -m pipeline mend_lock")
    infos = [*held["write"].values(), *(i for readers in held["read"].values() for i in readers)]
    found = {f"process {i['pid']} ({i['cmd']})" for i in infos if psutil.pid_exists(i["pid"])}
    return sorted(found)


def release_dead(claims: Path = CLAIMS) -> None:
    """Drop the claims of processes that have ended but were not collected.

    What a kill or a full disk left, so that DVC cannot read it, is set aside.
    """
    held = _notes(claims)
    if held is None:
        time.sleep(SETTLE_S)
        held = _notes(claims)
    if held is None:
        _rename_damaged(claims)
        return
    writers = {path: info for path, info in held["write"].items() if not _is_dead(info)}
    readers = {
        path: [info for info in infos if not _is_dead(info)] for path, infos in held["read"].items()
    }
    kept = {"write": writers, "read": {path: infos for path, infos in readers.items() if infos}}
    if kept != held:
        claims.write_text(json.dumps(kept), encoding="utf-8")


def _notes(path: Path) -> dict[str, Any] | None:
    """Return what DVC notes there; None if it cannot be read, such as half of it."""
    from dvc.rwlock import SCHEMA
    from voluptuous import Invalid

    try:
        return dict(SCHEMA(json.loads(path.read_text(encoding="utf-8"))))
    except FileNotFoundError:
        return dict(SCHEMA({}))
    except (ValueError, Invalid, IsADirectoryError):
        return None


def _is_dead(info: dict[str, Any]) -> bool:
    import psutil

    try:
        return bool(psutil.Process(info["pid"]).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False  # DVC notices that


def set_aside(lock: Path = LOCK) -> bool:
    """Rename a lock file that DVC cannot read to ``<name>.damaged``; return whether it was.

    One that was set aside before keeps its name: the new one gets a number.
    """
    from dvc.exceptions import DvcException
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from dvc.utils.serialize import load_yaml
    from voluptuous import Invalid

    if not lock.is_file():
        return False
    try:
        COMPILED_LOCKFILE_SCHEMA(load_yaml(str(lock)))
    except (DvcException, Invalid, UnicodeDecodeError):
        _rename_damaged(lock)
        return True
    return False


def _rename_damaged(path: Path) -> None:
    aside, number = path.with_name(f"{path.name}.damaged"), 1
    while aside.exists() or aside.is_symlink():
        number += 1
        aside = path.with_name(f"{path.name}.damaged.{number}")
    path.rename(aside)
