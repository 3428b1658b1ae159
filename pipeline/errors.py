"""Errors that a user can mend, as opposed to faults of this program."""


class UserError(Exception):
    """Bad input: says in one line what was expected, what was found, what to do."""
