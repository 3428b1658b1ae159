"""Go on with a file on Google Drive.

By ``gdown``: Drive shows a page to be confirmed before a large file.
"""

import hashlib
import re
import shutil
import threading
from pathlib import Path

import requests

from pipeline.config.sources import Version
from pipeline.runtime.files import require_space
from pipeline.sources.fetch import answers
from pipeline.sources.fetch.answers import Interrupted, Refused, Report, plain, require_not_busy
from pipeline.sources.fetch.partial import Note, read_note, size_of, write_note

ADDRESS = re.compile(r"https://drive\.google\.com/")


def from_drive(
    url: str, partial: Path, version: Version, report: Report, stop: threading.Event
) -> None:
    """Fetch what gdown has not fetched yet, and put it at ``partial``.

    Raises:
        Refused: this address does not give the file.
        Interrupted: it may a little later.
        UserError: the disk is too small.
    """
    note = read_note(partial)
    if note and note.url == url and note.total == size_of(partial):
        return
    output = _output(url, partial)
    begun = _begun(output, version)
    if not output.exists():
        if begun is None:
            report(0, None)
        _ask_gdown(url, output, version, report, stop)
    partial.unlink(missing_ok=True)  # before the note says whose bytes these are
    write_note(partial, Note(url, None, size_of(output)))
    shutil.move(output, partial)


def _output(url: str, partial: Path) -> Path:
    # named after the address: gdown goes on with whatever has this name
    mark = hashlib.sha256(url.encode()).hexdigest()[:8]
    return partial.with_name(f"{partial.name}.drive-{mark}")


def drive_bytes(url: str, partial: Path) -> int:
    """Return how much gdown has fetched of a file."""
    files = partial.parent.glob(f"{_output(url, partial).name}*")
    return max((size_of(path) for path in files if path.suffix != ".json"), default=0)


def _begun(output: Path, version: Version) -> Path | None:
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
            timeout=answers.TIMEOUT_S,
            cancel=stop,
        )
    except DownloadCancelled:
        raise Refused("stopped") from None
    except requests.HTTPError as error:
        if error.response is not None:
            require_not_busy(error.response)
        raise Refused(plain(error)) from None
    except (DownloadError, KeyError) as error:  # KeyError: of an answer without a type
        if "incomplete" in str(error):
            raise Interrupted("the answer ended before its time") from None
        begun = _begun(output, version)
        status = _status(url, size_of(begun) if begun else 0)
        if begun and status == 200 and "byte range" in str(error):
            begun.unlink()
            raise Interrupted("the server gives it as a whole only; beginning anew") from None
        if status in (200, 206):
            raise Interrupted(plain(error)) from None
        raise Refused(plain(error)) from None


def _status(url: str, have: int) -> int | None:
    """Ask as gdown did, which does not tell a busy server from one without the file.

    Returns the status of the answer from byte ``have`` on; None where that is a page.

    Raises:
        Interrupted: the server is busy.
    """
    from gdown.download import get_url_from_gdrive_confirmation
    from gdown.exceptions import FileURLRetrievalError

    with requests.get(url, stream=True, timeout=answers.TIMEOUT_S) as answer:
        require_not_busy(answer)
        if answer.headers.get("Content-Type", "").startswith("text/html"):
            try:
                url = get_url_from_gdrive_confirmation(answer.text)
            except FileURLRetrievalError:
                return None
    headers = {"Range": f"bytes={have}-"} if have else {}
    with requests.get(url, headers=headers, stream=True, timeout=answers.TIMEOUT_S) as answer:
        require_not_busy(answer)
        page = answer.headers.get("Content-Type", "").startswith("text/html")
        return None if page else answer.status_code
