"""Restore photographs one after the other, and say of each what is to be said."""

import errno
import os
from pathlib import Path

from rich.console import Console

from pipeline.images.reading.folders import Identity, identity
from pipeline.inference.photographs.listing import Order, shown
from pipeline.inference.photographs.restore import Handling, RowsRestorer, restore_photograph
from pipeline.runtime.errors import UserError
from pipeline.runtime.progress import ProgressBars

NAME_SHOWN = 30


def restore_all(
    accepted: list[Order], restore_rows: RowsRestorer, handling: Handling
) -> tuple[list[Order], int]:
    """Restore one after the other; return those that were, and how many another process had done.

    A full disk ends it. Prints a line for each that fails, and for what the others do not keep.
    """
    done: list[Order] = []
    left_alone = 0
    written: dict[
        Identity, str
    ] = {}  # where names that differ in case are one file, a result may meet another
    with ProgressBars("restore", "photographs") as progress:
        task = progress.add("restoring", len(accepted))
        console = progress.console
        for index, order in enumerate(accepted):
            name = shown(order.source.name)[:NAME_SHOWN]

            def report(share: float, index: int = index, name: str = name) -> None:
                progress.reach(task, index + share, len(accepted), detail=name)

            report(0)
            try:
                here = identity(order.target)
                if here is not None and here in written:
                    raise UserError(
                        f"{shown(order.source)}: {shown(order.target)} is the result of"
                        f" {written[here]} on this disk; restore it into another folder"
                    )
                if handling.leave and here is not None:
                    left_alone += 1
                    continue
                for note in restore_photograph(order, restore_rows, handling, report):
                    print_line(console, f"note: {shown(order.source)}: not kept: {note}")
                written[identity(order.target)] = shown(order.source)
                done.append(order)
            except UserError as error:
                print_line(console, f"error: {error}")
            except FileExistsError as error:
                if identity(order.target) is None:  # a file where its folder would be
                    print_line(console, f"error: {shown(order.source)}: {_reason(error, order)}")
                elif handling.leave:
                    left_alone += 1
                else:
                    there = f"{shown(order.target)} is there already"
                    print_line(console, f"error: {shown(order.source)}: {there}")
            except (OSError, MemoryError, RuntimeError) as error:
                # RuntimeError: what torch says where a tile does not fit into memory
                print_line(console, f"error: {shown(order.source)}: {_reason(error, order)}")
                left = len(accepted) - index - 1
                if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                    if left:
                        text = f"the {left} photographs after it were not tried"
                        print_line(console, f"error: disk full: {text}")
                    return done, left_alone
            progress.reach(task, index + 1, len(accepted), fresh=1)
    return done, left_alone


def _reason(error: Exception, order: Order) -> str:
    if isinstance(error, OSError):
        # the temporary name beside a result says nothing to the user
        file = Path(os.fsdecode(error.filename)) if error.filename else None
        file = order.target if file and file.suffix == ".partial" else file
        where = f" ({shown(file)})" if file else ""
        return f"{error.strerror or error}{where}"
    text = " ".join(str(error).split())[:300] or type(error).__name__
    return f"{text}; a smaller --tile takes less memory"


def print_line(console: Console, line: str) -> None:
    """Print a line as it is, however long and whatever is in it."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)
