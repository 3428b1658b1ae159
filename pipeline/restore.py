"""Restore photographs with a trained model.

Usage: python -m pipeline.restore INPUT... --model RUN_OR_FILE --out DIR

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
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pipeline.config import PARAMS_FILE, read_params
from pipeline.config.learning import Evaluate
from pipeline.errors import UserError
from pipeline.images import Image, to_uint8
from pipeline.paths import find_model
from pipeline.pictures.listing import Order, list_photographs, orders, shown
from pipeline.pictures.reading import Picture, Values, read_picture
from pipeline.pictures.writing import STRIP_ROWS, write_picture

FALLBACK = Evaluate(
    precision="fp32", threads=1, batch=1, processes=0, lpips_weights=None,
    tile=512, tile_overlap=64, kept_images=0,
)  # fmt: skip
"""Where there is no params.yaml; threads: all processors instead."""
MAX_MEGAPIXELS = 250
"""A header may claim any size; phones make 200 megapixels."""

NAME_SHOWN = 30
FAILED_STATUS, USAGE_STATUS, INTERRUPTED_STATUS = 1, 2, 130

RowsRestorer = Callable[[Callable[[slice], Image], tuple[int, int]], Iterator[Image]]
"""Gives restored bands of rows from a reader of rows and (height, width)."""


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
        _tell(console, line)
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


def load_rows_restorer(model: Path, settings: Evaluate) -> RowsRestorer:
    """Return what restores photographs band by band with a trained model.

    Raises:
        UserError: the file is missing, damaged, or holds other weights than its facts say.
    """
    from pipeline.device import prepare_torch, use_precision
    from pipeline.restoration import load_network, on_device, restore_rows

    prepare_torch(settings.threads)
    network, precision = on_device(load_network(model)[0]), use_precision(settings.precision)
    return lambda read, size: restore_rows(
        network, read, size, settings.tile, settings.tile_overlap, precision
    )


def restore_photograph(
    order: Order,
    restore_rows: RowsRestorer,
    largest_pixels: int,
    report: Callable[[float], None] = lambda share: None,
) -> None:
    """Restore one photograph into its file, whole or not at all.

    Args:
        order: source, target, format.
        restore_rows: the model.
        largest_pixels: what a photograph may have.
        report: called with the share that is done.

    Raises:
        UserError: the photograph cannot be read, or its format cannot hold the result, or the
            model's values are not finite.
        OSError: a file cannot be read or written.
    """
    picture = read_picture(order.source, shown(order.source), largest_pixels)
    form = picture.form

    def rows() -> Iterator[Values]:
        top = 0
        for band in restore_rows(lambda rows: _colours(picture, rows), (form.height, form.width)):
            # few rows at a time: rounding makes several copies
            for first in range(0, len(band), STRIP_ROWS):
                strip = band[first : first + STRIP_ROWS]
                yield _joined(strip, picture, slice(top, top + len(strip)))
                top += len(strip)
            del band, strip  # before the next is made
            report(top / form.height)

    try:
        write_picture(order.target, order.kind, form, rows())
    except UserError as error:
        raise UserError(f"{shown(order.source)}: {error}") from None


def _colours(picture: Picture, rows: slice) -> Image:
    """Return rows as RGB in [0, 1], without alpha; of grey, three equal channels."""
    values = picture.rows(rows)
    if picture.form.has_alpha:
        values = values[..., :-1]
    image: Image = values.astype(np.float32)
    image /= 2**picture.form.bits - 1  # in place: these rows are most of the memory
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def _joined(band: Image, picture: Picture, rows: slice) -> Values:
    """Return restored rows as the file's own values: grey if it was, with its alpha as it is."""
    if not np.isfinite(band).all():
        raise UserError("the model gives values that are not finite")
    form = picture.form
    colours: NDArray[Any] = band.mean(axis=2, keepdims=True) if form.channels < 3 else band
    values: Values = to_uint8(colours) if form.bits == 8 else _to_uint16(colours)
    if form.has_alpha:
        values = np.concatenate([values, picture.rows(rows)[..., -1:]], axis=2)
    return values


def _to_uint16(image: Image) -> NDArray[np.uint16]:
    values: NDArray[np.uint16] = np.rint(np.clip(image, 0, 1) * 65535).astype(np.uint16)
    return values


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
                _tell(console, str(error))
            except (OSError, MemoryError, RuntimeError) as error:
                # RuntimeError: what torch says where a tile does not fit into memory
                failed += 1
                _tell(console, f"{shown(order.source)}: {_reason(error)}")
                left = len(accepted) - index - 1
                if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                    if left:
                        _tell(console, f"disk full: the {left} photographs after it were not tried")
                    return failed + left
        bar.update(task, completed=len(accepted), name="")
    return failed


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        where = f" ({shown(os.fsdecode(error.filename))})" if error.filename else ""
        return f"{error.strerror or error}{where}"
    text = " ".join(str(error).split())[:300] or type(error).__name__
    return f"{text}; a smaller --tile takes less memory"


def _tell(console: Console, line: str) -> None:
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
    from pipeline.config.checks import build

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
    parser = argparse.ArgumentParser(
        prog="python -m pipeline.restore",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s INPUT... --model RUN_OR_FILE --out DIR [option ...]",
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT")
    parser.add_argument(
        "--model", required=True, help="a model.safetensors, or a run as denoise/noise_space-0"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument("--format", choices=("png", "tiff", "jpeg"), help="of every result")
    parser.add_argument("--overwrite", action="store_true", help="replace results of before")
    parser.add_argument("--tile", type=int, help="side in pixels (params.yaml, else 512)")
    parser.add_argument("--overlap", type=int, help="of tiles, pixels (params.yaml, else 64)")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"))
    parser.add_argument("--threads", type=int, help="(params.yaml, else all processors)")
    parser.add_argument(
        "--max-megapixels",
        type=_megapixels,
        default=MAX_MEGAPIXELS,
        help="refuse larger (%(default)s)",
    )
    return parser


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print("error: interrupted; finished results are whole", file=sys.stderr)
        sys.exit(INTERRUPTED_STATUS)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(USAGE_STATUS)
