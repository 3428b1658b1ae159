"""Bring the bytes of one address into a partial file, going on from what is there."""

import threading
from pathlib import Path

import requests

from pipeline.config.sources import Version
from pipeline.sources.fetch.answers import Interrupted, Refused, Report, plain
from pipeline.sources.fetch.drive import ADDRESS, drive_bytes, from_drive
from pipeline.sources.fetch.http import from_server
from pipeline.sources.fetch.partial import size_of

ATTEMPTS = 9
"""In a row without a byte that was not here before: the waits between them take three minutes."""
UNREACHED = 5
"""In a row at an address that has never answered: it may not be reached from here at all."""
FROM_ZERO = 5
"""From the first byte on, of a server that cannot go on where it was cut."""
BACKOFF_S = 1.0
"""Waited after the first failure, doubled after each further one."""
LONGEST_WAIT_S = 60.0


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
    drive = ADDRESS.match(url) is not None
    fetch = from_drive if drive else from_server
    from_zero, failures = 0, 0
    furthest = size = drive_bytes(url, partial) if drive else size_of(partial)
    went_on = reached = size > 0

    def watched(done: int, total: int | None) -> None:
        nonlocal from_zero
        from_zero += done == 0  # told once an answer, before its first byte
        report(done, total)

    while True:
        try:
            fetch(url, partial, version, watched, stop)
            return went_on
        except (requests.RequestException, Interrupted) as error:
            size = drive_bytes(url, partial) if drive else size_of(partial)
            went_on = went_on or size > 0
            asked = error.retry_after_s if isinstance(error, Interrupted) else 0.0
            reached = reached or from_zero > 0 or size > 0 or isinstance(error, Interrupted)
            # against the furthest of all: a server without ranges begins anew after each cut
            failures = 0 if size > furthest else failures + 1
            furthest = max(furthest, size)
            if failures >= (attempts := ATTEMPTS if reached else UNREACHED):
                raise Refused(f"{plain(error)}, {attempts} times in a row") from None
            if from_zero >= FROM_ZERO:
                raise Refused(f"{plain(error)}, {FROM_ZERO} times from the first byte on") from None
            stop.wait(max(asked, min(BACKOFF_S * 2 ** max(failures - 1, 0), LONGEST_WAIT_S)))
            if stop.is_set():
                raise Refused("stopped") from None
