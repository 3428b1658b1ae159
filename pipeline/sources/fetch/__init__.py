"""Fetch the archives of a published data set: each one whole and right, or not there.

An archive is looked for in this order: where it already lies, in the user's own copy
(``location``), in the folders ``$PIPELINE_ARCHIVES`` and ``$PIPELINE_DOWNLOADS``, at its addresses.
What is half fetched waits in ``$PIPELINE_DOWNLOADS`` (``downloads/``), outside of DVC's outputs.
"""

import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.filesize import decimal

from pipeline.config.data import Archive, FetchedSource, Version
from pipeline.errors import UserError
from pipeline.files import require_space
from pipeline.progress import Progress
from pipeline.sources.archives import CHECKSUMS, require_no_folder
from pipeline.sources.fetch.address import Refused, Report, transfer
from pipeline.sources.fetch.check import Wrong, require_right
from pipeline.sources.fetch.checksums import Checksums
from pipeline.sources.fetch.local import copy, take_file, take_folder
from pipeline.sources.fetch.partial import fetched_bytes, forget

FETCHED = "pipeline/sources/fetch"
"""Value of ``location`` that stands for the addresses."""
AT_ONCE = 3
"""Archives fetched at the same time."""


def download(settings: FetchedSource, folder: Path) -> None:
    """Leave the archives, and a list of their checksums, in a folder.

    Raises:
        UserError: an archive is nowhere to be had, or is not what it should be; says where a
            person finds it and where to put it. Or a folder lies among the archives.
    """
    print(f"{folder.name}: licence {settings.licence}; see {settings.page}", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    require_no_folder(folder)
    local = None if settings.location == FETCHED else Path(settings.location)
    if local is not None and not local.exists():
        raise UserError(
            f"sources.{folder.name}.location: {local} does not exist; expected an archive, a"
            f" folder, or {FETCHED} to fetch the data set"
        )
    checksums = Checksums(folder)
    if local is not None and local.is_dir():
        checksums.keep(take_folder(local, settings, folder, checksums))
        return
    wanted = list(settings.archives.values())
    names = {archive.file for archive in wanted}
    if local is not None:
        taken = take_file(local, settings, folder, checksums)
        names = {archive.file for archive in wanted[1:]} | taken
        wanted = [archive for archive in wanted[1:] if archive.file not in taken]
    for path in folder.iterdir():
        if path.name not in names | {CHECKSUMS}:
            path.unlink()
    _fetch_all(wanted, folder, settings.page, checksums)
    checksums.keep(names)


def _fetch_all(wanted: list[Archive], folder: Path, page: str, checksums: Checksums) -> None:
    stop = threading.Event()
    with Progress(folder.name, "bytes") as progress, ThreadPoolExecutor(AT_ONCE) as pool:
        _require_room(wanted, folder, progress)
        try:
            running = [
                pool.submit(_fetch, archive, folder, page, checksums, progress, stop)
                for archive in wanted
            ]
            errors = [error for future in running if (error := future.exception())]
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    for error in errors:
        if not isinstance(error, UserError):
            raise error
    if errors:
        raise UserError("; ".join(str(error) for error in errors))


def _require_room(wanted: list[Archive], folder: Path, progress: Progress) -> None:
    """Refuse a disk too small for what is still to come, as far as its size is known.

    What is fetched grows in the folder of downloads, and is moved: on one disk it lies there once.
    """
    fetched = whole = copied = 0
    unknown = []
    for archive in wanted:
        if (folder / archive.file).exists():
            continue
        place = next(filter(Path.is_file, _places(folder.name, archive.file)), None)
        size = archive.about_bytes
        if place is not None:
            copied += place.stat().st_size
        elif archive.versions and size is None:
            unknown.append(archive.file)
        elif archive.versions and size is not None:
            whole += size
            fetched += max(size - fetched_bytes(_partial(folder.name, archive.file)), 0)
    if unknown:
        progress.say(
            f"still to come: {decimal(fetched + copied)}, and of unknown size {', '.join(unknown)}"
        )
    if whole:
        _downloads().mkdir(parents=True, exist_ok=True)
    if whole and _downloads().stat().st_dev != folder.stat().st_dev:
        require_space(_downloads(), fetched)
        require_space(folder, whole + copied)
    else:
        require_space(folder, fetched + copied)


def _fetch(
    archive: Archive,
    folder: Path,
    page: str,
    checksums: Checksums,
    progress: Progress,
    stop: threading.Event,
) -> None:
    """Put an archive into its place, and its SHA-256 into the list."""
    target, name = folder / archive.file, archive.file
    recorded = checksums.get(name)
    if target.exists():
        try:
            checksums.note(name, require_right(target, archive.versions, recorded))
            return
        except Wrong as wrong:
            progress.say(f"{wrong}; fetching it anew")
            target.unlink()
    for place in _places(folder.name, name):
        if place.is_file():
            checksum = require_right(place, archive.versions, recorded)
            copy(place, target)
            checksums.note(name, checksum)
            return
    task = progress.add(name, None)
    reached: int | None = None

    def report(done: int, total: int | None) -> None:
        nonlocal reached
        # what an earlier run has fetched is told first, and counts for no rate
        progress.reach(task, done, total, 0 if reached is None else max(done - reached, 0))
        reached = done

    partial = _partial(folder.name, name)
    reasons = []
    for version in archive.versions:
        for url in version.urls:
            try:
                checksum = _fetch_from(url, version, partial, recorded, report, stop)
            except (Refused, Wrong) as error:
                reasons.append(f"{url}: {error}")
                progress.say(f"{name}: {url}: {error}")
                continue
            _move(partial, target)
            checksums.note(name, checksum)
            forget(partial)
            return
    raise UserError(_by_hand(folder.name, name, page, reasons))


def _fetch_from(
    url: str,
    version: Version,
    partial: Path,
    recorded: str | None,
    report: Report,
    stop: threading.Event,
) -> str:
    for again in (True, False):
        went_on = transfer(url, partial, version, report, stop)
        try:
            return require_right(partial, [version], recorded)
        except Wrong:
            partial.unlink()
            if not (went_on and again):
                raise
            # pieces of two different files: once more from the beginning
    raise AssertionError("the second attempt returns or raises")


def _by_hand(source: str, name: str, page: str, reasons: list[str]) -> str:
    tried = "; ".join(reasons) if reasons else "no address is known"
    return (
        f"{name}: could not be fetched ({tried}). By hand: find it at {page}, put it at"
        f" {_downloads() / source / name} and run the same command again; or name your own copy"
        f" with -S sources.{source}.location=PATH"
    )


def _downloads() -> Path:
    return Path(os.environ.get("PIPELINE_DOWNLOADS") or "downloads")


def _places(source: str, name: str) -> Iterator[Path]:
    shared = os.environ.get("PIPELINE_ARCHIVES")
    for place in ([Path(shared)] if shared else []) + [_downloads()]:
        yield place / source / name
        yield place / name


def _partial(source: str, name: str) -> Path:
    return _downloads() / source / f"{name}.partial"


def _move(partial: Path, target: Path) -> None:
    try:
        partial.replace(target)
    except OSError:  # another file system
        copy(partial, target)
        partial.unlink()
