"""Bring the bytes of one address into a partial file, going on from what is there.

``requests`` for HTTP: pooch neither goes on with half a file nor tells a cut connection from a
finished one. ``gdown`` for Google Drive, which shows a page to be confirmed before a large file.
"""

import hashlib
import re
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import requests

from pipeline.config.data import Version
from pipeline.files import require_space
from pipeline.sources.fetch.partial import Note, read_note, size_of, write_note

Report = Callable[[int, int | None], None]
"""Takes the bytes that are here and, if known, all bytes."""

ATTEMPTS = 5
"""In a row without a byte that was not here before; and from the first byte on."""
BACKOFF_S = 1.0
"""Waited after the first failure, doubled after each further one."""
TIMEOUT_S = (15, 60)
"""For a connection, and between two pieces of the answer."""
_CHUNK = 2**20
_DRIVE = re.compile(r"https://drive\.google\.com/")
_BUSY = (408, 425, 429)


class Refused(Exception):
    """An address does not give the file; another one may."""


class _Interrupted(Exception):
    """The same address may give the rest a little later."""


def transfer(
    url: str, partial: Path, version: Version, report: Report, stop: threading.Event
) -> bool:
    """Fill ``partial`` to its end; return whether it went on from bytes that were there before.

    Raises:
        Refused: no such file, a page instead of a file, another size than expected, no progress
            in ``ATTEMPTS`` attempts, or cut as often and never gone on with.
        UserError: the disk is too small.
    """
    partial.parent.mkdir(parents=True, exist_ok=True)
    if _DRIVE.match(url):
        return _from_drive(url, partial, version, report, stop)
    failures, from_zero, furthest = 0, 0, size_of(partial)
    went_on = furthest > 0

    def watched(done: int, total: int | None) -> None:
        nonlocal from_zero
        from_zero += done == 0  # told once an answer, before its first byte
        report(done, total)

    while True:
        try:
            _request(url, partial, version, watched, stop)
            return went_on
        except (requests.RequestException, _Interrupted) as error:
            size = size_of(partial)
            went_on = went_on or size > 0
            # against the furthest of all: a server without ranges begins anew after each cut
            failures = 0 if size > furthest else failures + 1
            furthest = max(furthest, size)
            if failures >= ATTEMPTS:
                raise Refused(f"{_plain(error)}, {ATTEMPTS} times in a row") from None
            if from_zero >= ATTEMPTS:
                raise Refused(f"{_plain(error)}, {ATTEMPTS} times from the first byte on") from None
            stop.wait(BACKOFF_S * 2 ** max(failures - 1, 0))
            if stop.is_set():
                raise Refused("stopped") from None


def _request(
    url: str, partial: Path, version: Version, report: Report, stop: threading.Event
) -> None:
    note = read_note(partial)
    have = size_of(partial) if _may_go_on(note, url, version) else 0
    headers = {"Accept-Encoding": "identity"}
    if have and note and note.total == have:
        return
    if have:
        headers["Range"] = f"bytes={have}-"
        if note and note.url == url and note.validator:
            headers["If-Range"] = note.validator
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as answer:
        if answer.status_code == 416:
            partial.unlink(missing_ok=True)
            raise _Interrupted("the server has no more bytes than are here; beginning anew")
        if answer.status_code >= 500 or answer.status_code in _BUSY:
            raise _Interrupted(f"HTTP {answer.status_code} {answer.reason}")
        if answer.status_code >= 400:
            raise Refused(f"HTTP {answer.status_code} {answer.reason}")
        kind = answer.headers.get("Content-Type", "").partition(";")[0]
        if kind == "text/html":
            raise Refused("a web page instead of the file")
        start, total = _extent(answer)
        if start not in (0, have) or (start and note and note.total not in (None, total)):
            partial.unlink(missing_ok=True)
            raise _Interrupted("the file has changed meanwhile; beginning anew")
        if version.size_bytes is not None and total not in (None, version.size_bytes):
            raise Refused(f"expected {version.size_bytes} bytes, the server has {total}")
        require_space(partial.parent, (total or 0) - start)
        validator = answer.headers.get("ETag") or answer.headers.get("Last-Modified")
        weak = validator is not None and validator.startswith("W/")
        if start == 0:
            partial.write_bytes(b"")  # before the note says whose bytes these are
        write_note(partial, Note(url, None if weak else validator, total))
        _save(answer, partial, start, total, report, stop)


def _save(
    answer: requests.Response,
    partial: Path,
    start: int,
    total: int | None,
    report: Report,
    stop: threading.Event,
) -> None:
    done = start
    with partial.open("r+b") as file:
        file.seek(start)
        file.truncate()
        report(done, total)
        for chunk in answer.iter_content(_CHUNK):
            file.write(chunk)
            done += len(chunk)
            report(done, total)
            if stop.is_set():
                raise Refused("stopped")
    if total is not None and done != total:
        raise _Interrupted(f"the answer ended after {done} of {total} bytes")


def _may_go_on(note: Note | None, url: str, version: Version) -> bool:
    """Bytes of another address, or without a mark of their version, need a checksum to be sure."""
    if note is None:
        return False
    return bool(version.sha256 or version.md5 or (note.url == url and note.validator))


def _extent(answer: requests.Response) -> tuple[int, int | None]:
    """Return the first byte of the answer's content and the size of the whole file."""
    if answer.status_code == 206:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if match is None:
            raise Refused(f"a part of the file without its place ({dict(answer.headers)})")
        return int(match[1]), None if match[2] == "*" else int(match[2])
    length = answer.headers.get("Content-Length", "")
    return 0, int(length) if length.isdigit() else None


def _from_drive(
    url: str, partial: Path, version: Version, report: Report, stop: threading.Event
) -> bool:
    note = read_note(partial)
    if note and note.url == url and note.total == size_of(partial):
        return True
    # named after the address: gdown goes on with whatever has this name
    mark = hashlib.sha256(url.encode()).hexdigest()[:8]
    output = partial.with_name(f"{partial.name}.drive-{mark}")
    begun = _begun_by_gdown(output, version)
    went_on = begun is not None or output.exists()
    if not output.exists():
        try:
            _ask_gdown(url, output, version, report, stop)
        except Refused as error:
            if begun is None or "byte range" not in str(error):
                raise
            begun.unlink(missing_ok=True)  # the server gives the file as a whole only
            went_on = False
            _ask_gdown(url, output, version, report, stop)
    partial.unlink(missing_ok=True)  # before the note says whose bytes these are
    write_note(partial, Note(url, None, size_of(output)))
    shutil.move(output, partial)
    return went_on


def _begun_by_gdown(output: Path, version: Version) -> Path | None:
    """Return what an earlier run has fetched of a file; what is whole takes its name."""
    parts = sorted(output.parent.glob(f"{output.name}????????.part"), key=size_of)
    for part in parts[:-1]:
        part.unlink()
    if not parts:
        return None
    note = read_note(output)
    if size_of(parts[-1]) in {version.size_bytes, note.total if note else None}:
        parts[-1].replace(output)
    return parts[-1]


def _ask_gdown(
    url: str, output: Path, version: Version, report: Report, stop: threading.Event
) -> None:
    import gdown
    from gdown.exceptions import DownloadCancelled, DownloadError, FileURLRetrievalError

    told = False

    def watched(done: int, total: int | None) -> None:
        nonlocal told
        if not told and total is not None:
            told = True
            if version.size_bytes not in (None, total):
                raise Refused(f"expected {version.size_bytes} bytes, the server has {total}")
            write_note(output, Note(url, None, total))
            require_space(output.parent, total - done)
        report(done, total)

    try:
        gdown.download(
            url,
            str(output),
            quiet=True,
            use_cookies=False,
            resume=True,
            progress=watched,
            timeout=TIMEOUT_S,
            retries=ATTEMPTS - 1,
            cancel=stop,
        )
    except (
        FileURLRetrievalError,
        DownloadError,
        DownloadCancelled,
        requests.RequestException,
    ) as error:
        raise Refused(_plain(error)) from None


def _plain(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
