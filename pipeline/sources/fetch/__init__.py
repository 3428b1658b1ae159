"""Fetch the archives of a published data set: each one whole and right, or not there.

An archive is looked for in this order: where it already lies, in the user's own copy
(``location``), in the folders ``$PIPELINE_ARCHIVES`` and ``$PIPELINE_DOWNLOADS``, at its addresses.
What is half fetched waits in ``$PIPELINE_DOWNLOADS`` (``downloads/``), outside of DVC's outputs.
"""

import os
import shutil
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipeline.config.data import Archive, FetchedSource, Version
from pipeline.errors import UserError
from pipeline.files import replacing, require_space, write_text
from pipeline.image_files import ENDINGS
from pipeline.progress import Progress
from pipeline.sources.archives import CHECKSUMS, LOOSE, PART, parts_of, write_archive
from pipeline.sources.fetch.address import Refused, Report, note_file, transfer
from pipeline.sources.fetch.check import Wrong, require_right

FETCHED = "pipeline/sources/fetch"
"""Value of ``location`` that stands for the addresses."""
PACKED_FOLDER = "folder.zip"
AT_ONCE = 3
"""Archives fetched at the same time."""
ARCHIVE_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz", ".rar")

Checksums = dict[str, str]
"""SHA-256 of every archive by file name."""


def download(settings: FetchedSource, folder: Path) -> None:
    """Leave the archives, and a list of their checksums, in a folder.

    Raises:
        UserError: an archive is nowhere to be had, or is not what it should be; says where a
            person finds it and where to put it.
    """
    print(f"{folder.name}: licence {settings.licence}; see {settings.page}", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    local = None if settings.location == FETCHED else Path(settings.location)
    if local is not None and not local.exists():
        raise UserError(
            f"sources.{folder.name}.location: {local} does not exist; expected an archive, a"
            f" folder, or {FETCHED} to fetch the data set"
        )
    if local is not None and local.is_dir():
        _write_checksums(folder, _copy_folder(local, folder))
        return
    wanted = list(settings.archives.values())
    checksums: Checksums = {}
    if local is not None:
        wanted = wanted[1:]
        for part in parts_of(local):
            _copy(part, folder / part.name)
            checksums[part.name] = require_right(folder / part.name, [], None)
    keep = {archive.file for archive in wanted} | set(checksums) | {CHECKSUMS}
    for path in folder.iterdir():
        if path.name not in keep:
            path.unlink()
    checksums |= _fetch_all(wanted, folder, settings.page)
    _write_checksums(folder, checksums)


def _fetch_all(wanted: list[Archive], folder: Path, page: str) -> Checksums:
    recorded = _recorded(folder)
    sizes = [archive.versions[0].size_bytes or 0 for archive in wanted
             if archive.versions and not (folder / archive.file).exists()]  # fmt: skip
    require_space(folder, sum(sizes))
    stop = threading.Event()
    with Progress(folder.name, "bytes") as progress, ThreadPoolExecutor(AT_ONCE) as pool:
        try:
            running = {
                archive.file: pool.submit(_fetch, archive, folder, page, recorded, progress, stop)
                for archive in wanted
            }
            errors = [error for future in running.values() if (error := future.exception())]
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    for error in errors:
        if not isinstance(error, UserError):
            raise error
    if errors:
        raise UserError("; ".join(str(error) for error in errors))
    return {name: future.result() for name, future in running.items()}


def _fetch(
    archive: Archive,
    folder: Path,
    page: str,
    recorded: Checksums,
    progress: Progress,
    stop: threading.Event,
) -> str:
    """Return the SHA-256 of an archive, which is then in its place."""
    target, name = folder / archive.file, archive.file
    if target.exists():
        try:
            return require_right(target, archive.versions, recorded.get(name))
        except Wrong as wrong:
            progress.say(f"{wrong}; fetching it anew")
            target.unlink()
    for place in _places(folder.name, name):
        if place.is_file():
            checksum = require_right(place, archive.versions, recorded.get(name))
            _copy(place, target)
            return checksum
    task = progress.add(name, None)
    reached = 0

    def report(done: int, total: int | None) -> None:
        nonlocal reached
        progress.reach(task, done, total, max(done - reached, 0))
        reached = done

    partial = _downloads() / folder.name / f"{name}.partial"
    reasons = []
    for version in archive.versions:
        for url in version.urls:
            try:
                checksum = _fetch_from(url, version, partial, recorded.get(name), report, stop)
            except (Refused, Wrong) as error:
                reasons.append(f"{url}: {error}")
                progress.say(f"{name}: {url}: {error}")
                continue
            _move(partial, target)
            note_file(partial).unlink(missing_ok=True)
            return checksum
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


def _copy_folder(local: Path, folder: Path) -> Checksums:
    """Take over a folder: its archives as they are, everything else packed into one."""
    archives, entries = [], []
    for path in sorted(local.rglob("*")):
        if not path.is_file() or path.name.startswith("."):
            continue
        if path.name.lower().endswith(ARCHIVE_ENDINGS) or PART.fullmatch(path.name):
            archives.append(path)
        elif path.name.lower().endswith((*ENDINGS, *LOOSE)):
            name = path.relative_to(local).as_posix()
            entries.append((name, lambda path=path: path.read_bytes()))
    if not archives and not entries:
        raise UserError(f"{local}: found neither an archive nor an image")
    for path in folder.iterdir():
        path.unlink()
    for path in archives:
        if (folder / path.name).exists():
            raise UserError(f"{local}: found two archives named {path.name}; keep one of the two")
        _copy(path, folder / path.name)
    if entries:
        write_archive(folder / PACKED_FOLDER, entries)
    return {path.name: require_right(path, [], None) for path in sorted(folder.iterdir())}


def _copy(source: Path, target: Path) -> None:
    require_space(target.parent, source.stat().st_size)
    with replacing(target) as partial:
        shutil.copyfile(source, partial)


def _move(partial: Path, target: Path) -> None:
    try:
        partial.replace(target)
    except OSError:  # another file system
        _copy(partial, target)
        partial.unlink()


def _recorded(folder: Path) -> Checksums:
    path = folder / CHECKSUMS
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    pairs = (line.split("  ", 1) for line in lines if "  " in line)
    return {name: checksum for checksum, name in pairs}


def _write_checksums(folder: Path, checksums: Checksums) -> None:
    # as sha256sum writes and checks it
    lines = (f"{checksum}  {name}\n" for name, checksum in sorted(checksums.items()))
    write_text(folder / CHECKSUMS, "".join(lines))
