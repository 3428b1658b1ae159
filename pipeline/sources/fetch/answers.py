"""What every way of fetching says of a server's answer: refused, or to be tried again."""

from collections.abc import Callable

import requests
from urllib3.exceptions import InvalidHeader
from urllib3.util import Retry

Report = Callable[[int, int | None], None]
"""Takes the bytes that are here and, if known, all bytes."""

TIMEOUT_S = (15, 60)
"""For a connection, and between two pieces of the answer."""
LONGEST_RETRY_AFTER_S = 600.0
"""Of what a server asks for."""
_BUSY = (408, 425, 429)


class Refused(Exception):
    """An address does not give the file; another one may."""


class Interrupted(Exception):
    """The same address may give the rest a little later, as it may say itself."""

    def __init__(self, reason: str, retry_after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


def require_not_busy(answer: requests.Response) -> None:
    """Raise Interrupted, with the wait that is asked for, if a later answer may be the file."""
    if answer.status_code < 500 and answer.status_code not in _BUSY:
        return
    try:
        seconds = Retry().parse_retry_after(answer.headers.get("Retry-After", "0"))
    except InvalidHeader:  # neither a number nor a date
        seconds = 0.0
    reason = f"HTTP {answer.status_code} {answer.reason}"
    raise Interrupted(reason, min(seconds, LONGEST_RETRY_AFTER_S))


def plain(error: Exception) -> str:
    """Return an error in one line."""
    return " ".join(str(error).split()) or type(error).__name__
