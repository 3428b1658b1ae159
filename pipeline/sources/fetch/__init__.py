"""Fetch the archives of a published data set: each one whole and right, or not there.

An archive is looked for in this order: where it already lies, in the user's own copy
(``location``), in the folders ``$PIPELINE_ARCHIVES`` and ``$PIPELINE_DOWNLOADS``, at its addresses.
What is half fetched waits in ``$PIPELINE_DOWNLOADS`` (``downloads/``), outside of DVC's outputs.
"""

import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.filesize import decimal

from pipeline.config.sources import Archive, FetchedSource, Version
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import require_space
from pipeline.runtime.progress import ProgressBars
from pipeline.sources.archives.reading import CHECKSUMS, require_no_folder
from pipeline.sources.fetch.address import transfer
from pipeline.sources.fetch.answers import Refused, Report
from pipeline.sources.fetch.check import Wrong, require_right
from pipeline.sources.fetch.checksums import Checksums
from pipeline.sources.fetch.hugging_face import through_endpoint
from pipeline.sources.fetch.local import copy, take_file, take_folder
from pipeline.sources.fetch.partial import fetched_bytes, forget
from pipeline.sources.fetch.places import clear, downloads, lying

FETCHED = "pipeline/sources/fetch"
"""Value of ``location`` that stands for the addresses."""
AT_ONCE = 3
"""Archives fetched at the same time."""


class _Missing(Exception):
    """An archive is nowhere to be had; why each of its addresses did not give it."""

    def __init__(self, name: str, reasons: list[str]) -> None:
        super().__init__(name)
        self.name, self.reasons = name, reasons


def download(settings: FetchedSource, folder: Path) -> None:
    """Leave the archives, and a list of their checksums, in a folder.

    What else lies there is moved to the downloads folder, unless it was fetched or copied before.

    Raises:
        UserError: an archive is nowhere to be had, or is not what it should be; says where a
            person finds it and where to put it. Or a folder lies among the archives.
    """
    folder.mkdir(parents=True, exist_ok=True)
    require_no_folder(folder)
    checksums = Checksums(folder)
    wanted = list(settings.archives.values())
    if settings.location == FETCHED:
        taken: set[str] = set()
        if not all(checksums.is_here(a.file) and (folder / a.file).exists() for a in wanted):
            _tell_licence(settings, folder.name)
    else:
        local = _local(settings.location, folder)
        _tell_licence(settings, folder.name)
        take = take_folder if local.is_dir() else take_file
        taken = take(local, settings, folder, checksums)
        wanted = [] if local.is_dir() else [a for a in wanted[1:] if a.file not in taken]
    names = taken | {archive.file for archive in wanted}
    for path in sorted(folder.iterdir()):
        if path.name not in names | {CHECKSUMS} and (kept := clear(path, checksums)):
            print(
                f"{folder.name}: {path.name} is none of its archives: now {kept}", file=sys.stderr
            )
    if wanted:
        _fetch_all(wanted, folder, settings.page, checksums)
    checksums.keep(names)
    if checksums.new:
        new = ", ".join(sorted(checksums.new))
        print(f"{folder.name}: {checksums.record} notes what {new} was: keep it in git",
              file=sys.stderr)  # fmt: skip


def _tell_licence(settings: FetchedSource, source: str) -> None:
    print(f"{source}: licence {settings.licence}; see {settings.page}", file=sys.stderr)


def _local(location: str, folder: Path) -> Path:
    """Return the user's own copy, which must not be what it is copied to."""
    local, setting = Path(location), f"sources.{folder.name}.location"
    if not local.exists():
        raise UserError(
            f"{setting}: {local} does not exist; expected an archive, a"
            f" folder, or {FETCHED} to fetch the data set"
        )
    real, target = local.resolve(), folder.resolve()
    if real.is_relative_to(target) or target.is_relative_to(real):
        raise UserError(
            f"{setting}: {local} is, lies in or holds {folder}, into which archives are copied;"
            f" what lies there already needs no location: set it to {FETCHED}, or move your copy"
        )
    return local


def _fetch_all(wanted: list[Archive], folder: Path, page: str, checksums: Checksums) -> None:
    stop = threading.Event()
    with ProgressBars(folder.name, "bytes") as progress, ThreadPoolExecutor(AT_ONCE) as pool:
        _require_room(wanted, folder, progress)
        try:
            running = [
                pool.submit(_fetch, archive, folder, checksums, progress, stop)
                for archive in wanted
            ]
            errors = [error for future in running if (error := future.exception())]
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    for error in errors:
        if not isinstance(error, UserError | _Missing):
            raise error
    told = [str(error) for error in errors if isinstance(error, UserError)]
    if missing := [error for error in errors if isinstance(error, _Missing)]:
        told.append(_by_hand(folder.name, missing, page))
    if told:
        raise UserError("; ".join(told))


def _require_room(wanted: list[Archive], folder: Path, progress: ProgressBars) -> None:
    """Refuse a disk too small for what is still to come, as far as its size is known.

    What is fetched grows in the folder of downloads, and is moved: on one disk it lies there once.
    """
    fetched = whole = copied = 0
    unknown = []
    for archive in wanted:
        if (folder / archive.file).exists():
            continue
        place = next(lying(folder.name, archive), None)
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
        downloads().mkdir(parents=True, exist_ok=True)
    if whole and downloads().stat().st_dev != folder.stat().st_dev:
        require_space(downloads(), fetched)
        require_space(folder, whole + copied)
    else:
        require_space(folder, fetched + copied)


def _fetch(
    archive: Archive,
    folder: Path,
    checksums: Checksums,
    progress: ProgressBars,
    stop: threading.Event,
) -> None:
    """Put an archive into its place, and its SHA-256 into the list.

    Raises:
        _Missing: it is nowhere to be had.
        Wrong: what was put there by hand is another file.
    """
    target, name = folder / archive.file, archive.file
    recorded = checksums.first(name)
    if target.exists():
        try:
            checksums.note_fetched(name, require_right(target, archive.versions, recorded))
            return
        except Wrong as wrong:
            kept = clear(target, checksums, ".replaced")
            progress.say(f"{wrong}; {f'now {kept}; ' if kept else ''}fetching it anew")
    for place in lying(folder.name, archive):
        try:
            checksum = require_right(place, archive.versions, recorded)
        except Wrong as wrong:
            if place.name == name:
                raise
            progress.say(f"{wrong}; left where it is")
            continue
        copy(place, target)
        checksums.note_fetched(name, checksum)
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
        for url in map(through_endpoint, version.urls):
            try:
                checksum = _fetch_from(url, version, partial, recorded, report, stop)
            except (Refused, Wrong) as error:
                reasons.append(f"{url}: {error}")
                progress.say(f"{name}: {url}: {error}")
                continue
            _move(partial, target)
            checksums.note_fetched(name, checksum)
            forget(partial)
            return
    raise _Missing(name, reasons)


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


def _by_hand(source: str, missing: Sequence[_Missing], page: str) -> str:
    why = {m.name: "; ".join(m.reasons) for m in missing if m.reasons}
    if unknown := ", ".join(m.name for m in missing if not m.reasons):
        why[unknown] = "no address is known"
    told = "; ".join(f"{name}: could not be fetched ({reason})" for name, reason in why.items())
    folder = downloads() / source
    if len(missing) == 1:
        what, where = "it", f"it at {folder / missing[0].name}"
    else:
        what, where = "them", f"each under its name into {folder}"
    return (
        f"{told}. By hand: find {what} at {page}, put {where} and run the same command"
        f" again; or name your own copy with -S sources.{source}.location=PATH"
    )


def _partial(source: str, name: str) -> Path:
    return downloads() / source / f"{name}.partial"


def _move(partial: Path, target: Path) -> None:
    try:
        partial.replace(target)
    except OSError:  # another file system
        copy(partial, target)
        partial.unlink()
