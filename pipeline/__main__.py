"""``python -m pipeline`` lists the commands; ``python -m pipeline COMMAND --help`` explains one."""

import os
import sys
from difflib import get_close_matches
from importlib import import_module

from pipeline.commands import COMMANDS, program
from pipeline.runtime.errors import (
    INTERRUPTED_STATUS,
    UNREAD_STATUS,
    USER_ERROR_STATUS,
    UserError,
    in_one_line,
)
from pipeline.runtime.messages import bear_any_terminal


def main() -> None:
    """Run the command that the command line names, and exit with its status.

    A mistake that a user can mend, a file that cannot be read or written, a full disk or too little
    memory end with one line and status 2.
    """
    words = sys.argv[1:]
    bear_any_terminal()
    try:
        sys.exit(_run(words))
    except BrokenPipeError:  # who read has read enough, such as 'head'
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(UNREAD_STATUS)
    except (Exception, KeyboardInterrupt) as error:
        line = in_one_line(error)
        if line is None and not isinstance(error, OSError):
            raise
        print(f"error: {line or ' '.join(str(error).split())}", file=sys.stderr)
        interrupted = isinstance(error, KeyboardInterrupt)
        sys.exit(INTERRUPTED_STATUS if interrupted else USER_ERROR_STATUS)


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(listing())
        return 0
    name, *rest = words
    if name not in COMMANDS:
        nearest = get_close_matches(name, COMMANDS, n=1)
        hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
        raise UserError(f"found the command {name!r}, expected one of {', '.join(COMMANDS)}{hint}")
    status: int = import_module(f"pipeline.commands.{name}").main(rest)
    return status


def listing() -> str:
    """Return all commands, a line each."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {purpose}" for name, purpose in COMMANDS.items()]
    return "\n".join(
        [f"Usage: {program()} COMMAND [argument ...]", "", *lines, "",
         f"{program()} COMMAND --help explains a command."]
    )  # fmt: skip


if __name__ == "__main__":
    main()
