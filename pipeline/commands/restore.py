"""Restore photographs with a trained model.

INPUT is a file, a folder (with all below it) or a pattern such as 'photos/**/*.png'. Results keep
names and sub-folders, the depth of 8 or 16 bits, grey, alpha, ICC profile, pixel density and EXIF
data; pixels are written upright. PNG, TIFF and JPEG stay what they are, others become PNG; --format
decides otherwise. A JPEG is written with quality 95 and full colour resolution.

Memory beside the network's own for a tile: 4 bytes a pixel of the photograph (16 bits 8, a JPEG
written 9, a progressive JPEG while it is read 10, a turned TIFF twice while it is read) and
40 x width x tile bytes for two rows of tiles.

Exit status: 0 all restored, 1 some failed (each is named), 2 wrong usage.
"""

import argparse
import errno
import math
import os
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pipeline.commands import parser
from pipeline.config.params import PARAMS_FILE
from pipeline.config.read import read_params
from pipeline.config.running import Evaluate
from pipeline.inference.photographs.listing import Order, list_photographs, orders, shown
from pipeline.inference.photographs.restore import (
    RowsRestorer,
    load_rows_restorer,
    restore_photograph,
)
from pipeline.runtime.errors import UserError
from pipeline.runtime.paths import find_model

FALLBACK = Evaluate(
    precision="fp32", threads=1, batch=1, processes=0, lpips_weights=None,
    tile=512, tile_overlap=64, kept_images=0,
)  # fmt: skip
"""Where there is no params.yaml; threads: all processors instead."""
MAX_MEGAPIXELS = 250
"""A header may claim any size; phones make 200 megapixels."""

NAME_SHOWN = 30
FAILED_STATUS = 1


def main(words: list[str]) -> int:
    """Restore what the command line names and return the exit status.

    Raises:
        UserError: wrong usage; nothing was restored.
    """
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    arguments = _parser().parse_args(words)
    settings = _settings(arguments)
    _require_writable(arguments.out)
    model = find_model(arguments.model)
    listing = list_photographs(arguments.inputs, arguments.out)
    accepted, refused = orders(listing, arguments.out, arguments.format, arguments.overwrite)
    for line in (refused := listing.refused + refused):
        _print_error(console, line)
    restore_rows = load_rows_restorer(model, settings)
    megapixels = arguments.max_megapixels
    begun = time.monotonic()
    failed = _restore_all(accepted, restore_rows, megapixels, console)
    done = len(accepted) - failed
    summary = f"{done} restored into {shown(arguments.out)} in {time.monotonic() - begun:.1f} s"
    summary += f", {failed + len(refused)} failed" if failed or refused else ""
    if listing.others:
        endings = sorted({file.suffix.lower() or "no ending" for file in listing.others})
        summary += f", {len(listing.others)} other files left alone ({shown(', '.join(endings))})"
    print(summary)
    return FAILED_STATUS if failed or refused else 0


def _restore_all(
    accepted: list[Order], restore_rows: RowsRestorer, megapixels: float, console: Console
) -> int:
    """Restore one after the other and return how many failed; a full disk ends it."""
    failed = 0
    bar = Progress(
        TextColumn("{task.completed:.1f} of {task.total} photographs"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[name]}", markup=False),
        console=console,
        disable=not console.is_terminal,
    )
    with bar:
        task = bar.add_task("", total=len(accepted), name="")
        for index, order in enumerate(accepted):
            bar.update(task, completed=index, name=shown(order.source.name)[:NAME_SHOWN])
            try:
                restore_photograph(
                    order,
                    restore_rows,
                    round(megapixels * 1e6),
                    lambda share, index=index: bar.update(task, completed=index + share),  # type: ignore[misc]
                )
            except UserError as error:
                failed += 1
                _print_error(console, str(error))
            except (OSError, MemoryError, RuntimeError) as error:
                # RuntimeError: what torch says where a tile does not fit into memory
                failed += 1
                _print_error(console, f"{shown(order.source)}: {_reason(error)}")
                left = len(accepted) - index - 1
                if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                    if left:
                        _print_error(
                            console, f"disk full: the {left} photographs after it were not tried"
                        )
                    return failed + left
        bar.update(task, completed=len(accepted), name="")
    return failed


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        where = f" ({shown(os.fsdecode(error.filename))})" if error.filename else ""
        return f"{error.strerror or error}{where}"
    text = " ".join(str(error).split())[:300] or type(error).__name__
    return f"{text}; a smaller --tile takes less memory"


def _print_error(console: Console, line: str) -> None:
    console.print(f"error: {line}", markup=False)


def _settings(arguments: argparse.Namespace) -> Evaluate:
    """Return what the command line says, else params.yaml, else constants."""
    if PARAMS_FILE.is_file():
        base = read_params().evaluate
    else:
        threads = len(os.sched_getaffinity(0))
        base = Evaluate(**{**vars(FALLBACK), "threads": threads})
    given = {
        "precision": arguments.precision,
        "threads": arguments.threads,
        "tile": arguments.tile,
        "tile_overlap": arguments.overlap,
    }
    values = vars(base) | {name: value for name, value in given.items() if value is not None}
    from pipeline.config.build import build

    settings: Evaluate = build(Evaluate, values, "command line")
    if settings.tile_overlap * 2 > settings.tile:
        raise UserError(
            f"--overlap: found {settings.tile_overlap}, expected at most half of --tile ="
            f" {settings.tile}"
        )
    return settings


def _require_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"--out {shown(folder)}: cannot be written to ({error.strerror})") from None


def _megapixels(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"found {text}, expected a number above 0")
    return value


def _parser() -> argparse.ArgumentParser:
    given = parser("restore", __doc__)
    given.usage = "%(prog)s INPUT... --model RUN_OR_FILE --out DIR [option ...]"
    given.add_argument("inputs", nargs="+", metavar="INPUT")
    given.add_argument(
        "--model", required=True, help="a model.safetensors, or a run as denoise/noise_space-0"
    )
    given.add_argument("--out", required=True, type=Path, metavar="DIR")
    given.add_argument("--format", choices=("png", "tiff", "jpeg"), help="of every result")
    given.add_argument("--overwrite", action="store_true", help="replace results of before")
    given.add_argument("--tile", type=int, help="side in pixels (params.yaml, else 512)")
    given.add_argument("--overlap", type=int, help="of tiles, pixels (params.yaml, else 64)")
    given.add_argument("--precision", choices=("auto", "fp32", "bf16"))
    given.add_argument("--threads", type=int, help="(params.yaml, else all processors)")
    given.add_argument(
        "--max-megapixels",
        type=_megapixels,
        default=MAX_MEGAPIXELS,
        help="refuse larger (%(default)s)",
    )
    return given
