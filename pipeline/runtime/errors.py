"""Errors that a user can mend, as opposed to faults of this program."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

USER_ERROR_STATUS = 2


class UserError(Exception):
    """Bad input: says in one line what was expected, what was found, what to do."""


@contextmanager
def user_errors_end() -> Iterator[None]:
    """End the process at a user's mistake: one line, and status 2."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USER_ERROR_STATUS)
