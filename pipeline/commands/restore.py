"""Restore photographs with trained models.

INPUT is a file, a folder (with all below it) or a pattern such as 'photos/**/*.png'. Results keep
names and sub-folders, depth (8 or 16 bits, float32), grey, alpha, date and mode of the file, colour
profile, pixel density, EXIF, XMP, IPTC and text; a line names what cannot be kept. Pixels are
written upright. PNG, TIFF and JPEG stay what they are, others become PNG; --format decides
otherwise. Colours of a wide or linear profile are brought to sRGB for the network, and back.

Memory beside the network's own for a tile: 40 x width x tile bytes for two rows of tiles, for each
model. PNG and TIFF pass through by the row; JPEG, WebP and BMP take 4 bytes a pixel, and so do JPEG
and WebP that are written; what is turned, planar or float32 is held whole as it is in the file.

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

from pipeline.commands import parser
from pipeline.config.build import build
from pipeline.config.params import PARAMS_FILE
from pipeline.config.read import read_params
from pipeline.config.running import Evaluate
from pipeline.images.folders import Identity, identity
from pipeline.inference.photographs.listing import (
    Listing,
    Naming,
    Order,
    list_photographs,
    plan,
    shown,
)
from pipeline.inference.photographs.restore import (
    Handling,
    RowsRestorer,
    load_rows_restorer,
    restore_photograph,
)
from pipeline.inference.photographs.writing import LIMITS, QUALITY
from pipeline.runtime.errors import UserError
from pipeline.runtime.messages import library_messages_hidden
from pipeline.runtime.paths import find_model
from pipeline.runtime.progress import ProgressBars

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
    arguments = _parser().parse_args(words)
    settings = _settings(arguments)
    if arguments.overwrite and arguments.skip_existing:
        raise UserError("--overwrite and --skip-existing: expected one of the two")
    _require_writable(arguments.out)
    models = [find_model(model) for model in arguments.model]
    naming = Naming(arguments.out, arguments.format, arguments.suffix, arguments.overwrite,
                    arguments.skip_existing)  # fmt: skip
    handling = Handling(
        round(arguments.max_megapixels * 1e6), arguments.strength, arguments.quality,
        arguments.lenient, arguments.overwrite,
    )  # fmt: skip
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    with library_messages_hidden():
        listing = list_photographs(arguments.inputs, arguments.out)
        planned = plan(listing, naming)
        for line in (refused := listing.refused + planned.refused):
            _print(console, f"error: {line}")
        restore_rows = load_rows_restorer(models, settings)
        begun = time.monotonic()
        failed = _restore_all(planned.accepted, restore_rows, handling)
    done = len(planned.accepted) - failed
    summary = f"{done} restored into {shown(arguments.out)} in {time.monotonic() - begun:.1f} s"
    summary += f", {failed + len(refused)} failed" if failed or refused else ""
    summary += f", {planned.skipped} were there already" if planned.skipped else ""
    print(summary + _left_alone(listing))
    return FAILED_STATUS if failed or refused else 0


def _left_alone(listing: Listing) -> str:
    text = ""
    if listing.others:
        endings = sorted({file.suffix.lower() or "no ending" for file in listing.others})
        text += f", {len(listing.others)} other files left alone ({shown(', '.join(endings))})"
    if listing.left_out:
        names = sorted({folder.name for folder in listing.left_out})
        text += (
            f", {len(listing.left_out)} folders of hidden files, thumbnails or trash left alone"
            f" ({shown(', '.join(names))})"
        )
    return text


def _restore_all(accepted: list[Order], restore_rows: RowsRestorer, handling: Handling) -> int:
    """Restore one after the other and return how many failed; a full disk ends it."""
    failed = 0
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
                for note in restore_photograph(order, restore_rows, handling, report):
                    _print(console, f"note: {shown(order.source)}: not kept: {note}")
                written[identity(order.target)] = shown(order.source)
            except UserError as error:
                failed += 1
                _print(console, f"error: {error}")
            except (OSError, MemoryError, RuntimeError) as error:
                # RuntimeError: what torch says where a tile does not fit into memory
                failed += 1
                _print(console, f"error: {shown(order.source)}: {_reason(error, order)}")
                left = len(accepted) - index - 1
                if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
                    if left:
                        _print(console, f"error: disk full: the {left} photographs after it were"
                                        " not tried")  # fmt: skip
                    return failed + left
            progress.reach(task, index + 1, len(accepted), fresh=1)
    return failed


def _reason(error: Exception, order: Order) -> str:
    if isinstance(error, OSError):
        # the temporary name beside a result says nothing to the user
        file = Path(os.fsdecode(error.filename)) if error.filename else None
        file = order.target if file and file.suffix == ".partial" else file
        where = f" ({shown(file)})" if file else ""
        return f"{error.strerror or error}{where}"
    text = " ".join(str(error).split())[:300] or type(error).__name__
    return f"{text}; a smaller --tile takes less memory"


def _print(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False)


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


def _quality(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 100:
        raise argparse.ArgumentTypeError(f"found {text}, expected a whole number from 1 to 100")
    return value


def _strength(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"found {text}, expected a number from 0 to 1")
    return value


def _suffix(text: str) -> str:
    if "/" in text or "\0" in text:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a part of a file name")
    return text


def _parser() -> argparse.ArgumentParser:
    given = parser("restore", __doc__)
    given.usage = "%(prog)s INPUT... --model RUN_OR_FILE [--model ...] --out DIR [option ...]"
    given.add_argument("inputs", nargs="+", metavar="INPUT")
    given.add_argument(
        "--model",
        required=True,
        action="append",
        help="a model.safetensors, or a run as denoise/noise_space-0; several follow each other",
    )
    given.add_argument("--out", required=True, type=Path, metavar="DIR")
    given.add_argument("--format", choices=tuple(LIMITS), help="of every result")
    given.add_argument("--quality", type=_quality, default=QUALITY,
                       help="of JPEG and WebP, 1 to 100 (%(default)s)")  # fmt: skip
    given.add_argument("--suffix", type=_suffix, default="", help="of result names: _restored, say")
    given.add_argument("--strength", type=_strength, default=1.0, metavar="S",
                       help="S x restored + (1 - S) x photograph (%(default)s)")  # fmt: skip
    given.add_argument("--overwrite", action="store_true", help="replace results of before")
    given.add_argument("--skip-existing", action="store_true", help="leave results of before")
    given.add_argument("--lenient", action="store_true",
                       help="take damaged files as far as they can be decoded")  # fmt: skip
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
