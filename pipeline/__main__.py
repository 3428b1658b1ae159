"""``python -m pipeline`` lists the commands; ``python -m pipeline COMMAND --help`` explains one."""

import sys
from difflib import get_close_matches
from importlib import import_module

from pipeline.commands import COMMANDS, program
from pipeline.runtime.errors import USER_ERROR_STATUS, UserError

INTERRUPTED_STATUS = 130
"""What shells report of a process that SIGINT ended: 128 + 2."""


def main() -> None:
    """Run the command that the command line names, and exit with its status.

    A mistake that a user can mend, or a file that cannot be read or written, ends with one line
    and status 2.
    """
    words = sys.argv[1:]
    try:
        sys.exit(_run(words))
    except UserError as error:
        _end(str(error), USER_ERROR_STATUS)
    except OSError as error:
        _end(" ".join(str(error).split()), USER_ERROR_STATUS)
    except KeyboardInterrupt:
        _end("interrupted; finished results are whole", INTERRUPTED_STATUS)


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


def _end(message: str, status: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
