"""Go on with a file over HTTP.

By ``requests``: pooch neither goes on with half a file nor tells a cut connection from a finished
one.
"""

import re
import threading
from pathlib import Path

import requests

from pipeline.config.sources import Version
from pipeline.runtime.files import require_space
from pipeline.sources.fetch import answers
from pipeline.sources.fetch.answers import Interrupted, Refused, Report, require_not_busy
from pipeline.sources.fetch.hugging_face import authorization, hint
from pipeline.sources.fetch.partial import Note, read_note, size_of, write_note

_CHUNK = 2**20


def from_server(
    url: str, partial: Path, version: Version, report: Report, stop: threading.Event
) -> None:
    """Fetch what is not in ``partial`` yet; all, where going on might mix two files.

    Raises:
        Refused: this address does not give the file.
        Interrupted: it may a little later.
        UserError: the disk is too small.
    """
    note = read_note(partial)
    have = size_of(partial) if _may_go_on(note, url, version) else 0
    headers = {"Accept-Encoding": "identity", **authorization(url)}
    if have and note and note.total == have:
        return
    if have:
        headers["Range"] = f"bytes={have}-"
        if note and note.url == url and note.validator:
            headers["If-Range"] = note.validator
    with requests.get(url, headers=headers, stream=True, timeout=answers.TIMEOUT_S) as answer:
        if answer.status_code == 416:
            partial.unlink(missing_ok=True)
            raise Interrupted("the server has no more bytes than are here; beginning anew")
        require_not_busy(answer)
        if answer.status_code >= 400:
            raise Refused(
                f"HTTP {answer.status_code} {answer.reason}{hint(url, answer.status_code)}"
            )
        kind = answer.headers.get("Content-Type", "").partition(";")[0]
        if kind == "text/html":
            raise Refused("a web page instead of the file")
        start, total = _extent(answer)
        if start not in (0, have) or (start and note and note.total not in (None, total)):
            partial.unlink(missing_ok=True)
            raise Interrupted("the file has changed meanwhile; beginning anew")
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
        raise Interrupted(f"the answer ended after {done} of {total} bytes")


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
