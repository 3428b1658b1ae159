"""Bring the bytes of one address into a partial file, going on from what is there.

``requests`` for HTTP: pooch neither goes on with half a file nor tells a cut connection from a
finished one. ``gdown`` for Google Drive, which shows a page to be confirmed before a large file.
"""

import contextlib
import email.utils
import hashlib
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import requests

from pipeline.config.data import Version
from pipeline.files import require_space
from pipeline.sources.fetch.partial import Note, read_note, size_of, write_note

Report = Callable[[int, int | None], None]
"""Takes the bytes that are here and, if known, all bytes."""

ATTEMPTS = 9
"""In a row without a byte that was not here before: the waits between them take three minutes."""
UNREACHED = 5
"""In a row at an address that has never answered: it may not be reached from here at all."""
FROM_ZERO = 5
"""From the first byte on, of a server that cannot go on where it was cut."""
BACKOFF_S = 1.0
"""Waited after the first failure, doubled after each further one."""
LONGEST_WAIT_S = 60.0
LONGEST_RETRY_AFTER_S = 600.0
"""Of what a server asks for."""
TIMEOUT_S = (15, 60)
"""For a connection, and between two pieces of the answer."""
_CHUNK = 2**20
_DRIVE = re.compile(r"https://drive\.google\.com/")
_BUSY = (408, 425, 429)


class Refused(Exception):
    """An address does not give the file; another one may."""


class _Interrupted(Exception):
    """The same address may give the rest a little later, as it may say itself."""

    def __init__(self, reason: str, retry_after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


def transfer(
    url: str, partial: Path, version: Version, report: Report, stop: threading.Event
) -> bool:
    """Fill ``partial`` to its end; return whether it went on from bytes that were there before.

    Raises:
        Refused: no such file, a page instead of a file, another size than expected, no progress
            in ``ATTEMPTS`` attempts, or cut ``FROM_ZERO`` times and never gone on with.
        UserError: the disk is too small.
    """
    partial.parent.mkdir(parents=True, exist_ok=True)
    drive = _DRIVE.match(url) is not None
    fetch = _from_drive if drive else _request
    from_zero, failures = 0, 0
    furthest = size = _drive_bytes(url, partial) if drive else size_of(partial)
    went_on = reached = size > 0

    def watched(done: int, total: int | None) -> None:
        nonlocal from_zero
        from_zero += done == 0  # told once an answer, before its first byte
        report(done, total)

    while True:
        try:
            fetch(url, partial, version, watched, stop)
            return went_on
        except (requests.RequestException, _Interrupted) as error:
            size = _drive_bytes(url, partial) if drive else size_of(partial)
            went_on = went_on or size > 0
            asked = error.retry_after_s if isinstance(error, _Interrupted) else 0.0
            reached = reached or from_zero > 0 or size > 0 or isinstance(error, _Interrupted)
            # against the furthest of all: a server without ranges begins anew after each cut
            failures = 0 if size > furthest else failures + 1
            furthest = max(furthest, size)
            if failures >= (attempts := ATTEMPTS if reached else UNREACHED):
                raise Refused(f"{_plain(error)}, {attempts} times in a row") from None
            if from_zero >= FROM_ZERO:
                raise Refused(
                    f"{_plain(error)}, {FROM_ZERO} times from the first byte on"
                ) from None
            stop.wait(max(asked, min(BACKOFF_S * 2 ** max(failures - 1, 0), LONGEST_WAIT_S)))
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
        _require_not_busy(answer)
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


def _require_not_busy(answer: requests.Response) -> None:
    if answer.status_code < 500 and answer.status_code not in _BUSY:
        return
    asked = answer.headers.get("Retry-After", "").strip()
    seconds = float(asked) if asked.isdigit() else 0.0
    with contextlib.suppress(ValueError):  # neither a number nor a date
        if asked and not asked.isdigit():
            seconds = email.utils.parsedate_to_datetime(asked).timestamp() - time.time()
    reason = f"HTTP {answer.status_code} {answer.reason}"
    raise _Interrupted(reason, min(max(seconds, 0.0), LONGEST_RETRY_AFTER_S))


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
) -> None:
    note = read_note(partial)
    if note and note.url == url and note.total == size_of(partial):
        return
    output = _drive_output(url, partial)
    begun = _begun_by_gdown(output, version)
    if not output.exists():
        if begun is None:
            report(0, None)
        _ask_gdown(url, output, version, report, stop)
    partial.unlink(missing_ok=True)  # before the note says whose bytes these are
    write_note(partial, Note(url, None, size_of(output)))
    shutil.move(output, partial)


def _drive_output(url: str, partial: Path) -> Path:
    # named after the address: gdown goes on with whatever has this name
    mark = hashlib.sha256(url.encode()).hexdigest()[:8]
    return partial.with_name(f"{partial.name}.drive-{mark}")


def _drive_bytes(url: str, partial: Path) -> int:
    """Return how much gdown has fetched of a file."""
    files = partial.parent.glob(f"{_drive_output(url, partial).name}*")
    return max((size_of(path) for path in files if path.suffix != ".json"), default=0)


def _begun_by_gdown(output: Path, version: Version) -> Path | None:
    """Return what an earlier attempt has fetched of a file; what is whole takes its name."""
    parts = sorted(output.parent.glob(f"{output.name}????????.part"), key=size_of)
    for part in parts[:-1]:
        part.unlink()
    if not parts or size_of(parts[-1]) == 0:
        return None
    note = read_note(output)
    if size_of(parts[-1]) in {version.size_bytes, note.total if note else None}:
        parts[-1].replace(output)
    return parts[-1]


def _ask_gdown(
    url: str, output: Path, version: Version, report: Report, stop: threading.Event
) -> None:
    import gdown
    from gdown.exceptions import DownloadCancelled, DownloadError

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
            cancel=stop,
        )
    except DownloadCancelled:
        raise Refused("stopped") from None
    except requests.HTTPError as error:
        if error.response is not None:
            _require_not_busy(error.response)
        raise Refused(_plain(error)) from None
    except (DownloadError, KeyError) as error:  # KeyError: of an answer without a type
        if "incomplete" in str(error):
            raise _Interrupted("the answer ended before its time") from None
        begun = _begun_by_gdown(output, version)
        status = _drive_status(url, size_of(begun) if begun else 0)
        if begun and status == 200 and "byte range" in str(error):
            begun.unlink()
            raise _Interrupted("the server gives it as a whole only; beginning anew") from None
        if status in (200, 206):
            raise _Interrupted(_plain(error)) from None
        raise Refused(_plain(error)) from None


def _drive_status(url: str, have: int) -> int | None:
    """Ask as gdown did, which does not tell a busy server from one without the file.

    Returns the status of the answer from byte ``have`` on; None where that is a page.

    Raises:
        _Interrupted: the server is busy.
    """
    from gdown.download import get_url_from_gdrive_confirmation
    from gdown.exceptions import FileURLRetrievalError

    with requests.get(url, stream=True, timeout=TIMEOUT_S) as answer:
        _require_not_busy(answer)
        if answer.headers.get("Content-Type", "").startswith("text/html"):
            try:
                url = get_url_from_gdrive_confirmation(answer.text)
            except FileURLRetrievalError:
                return None
    headers = {"Range": f"bytes={have}-"} if have else {}
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as answer:
        _require_not_busy(answer)
        page = answer.headers.get("Content-Type", "").startswith("text/html")
        return None if page else answer.status_code


def _plain(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
