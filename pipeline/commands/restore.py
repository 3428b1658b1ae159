"""Restore photographs with trained models.

INPUT is a file, a folder (with all below it) or a pattern such as 'photos/**/*.png'. Results keep
names and sub-folders, depth (8 or 16 bits, float32), grey, alpha, date and mode of the file, colour
profile, pixel density, EXIF, XMP, IPTC and text; a line names what cannot be kept. Pixels are
written upright. PNG, TIFF and JPEG stay what they are, others become PNG; --format decides
otherwise. Colours of a wide or linear profile are brought to sRGB for the network, and back.

Memory beside the network's own for a tile: 40 x width x tile bytes for two rows of tiles, for each
model. PNG and TIFF pass through by the row; JPEG, WebP and BMP take 4 bytes a pixel, and so do JPEG
and WebP that are written; what is turned, planar or float32 is held whole as it is in the file.
Camera raw takes 16 bytes a pixel while it is developed.

Exit status: 0 all restored, 1 some failed (each is named), 2 wrong usage.
"""

import argparse
import math
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from pipeline.commands import parser
from pipeline.config.build import build
from pipeline.config.params import PARAMS_FILE
from pipeline.config.read import read_params
from pipeline.config.running import Evaluate
from pipeline.inference.photographs.listing import (
    Listing,
    Naming,
    Order,
    list_photographs,
    plan,
    shown,
)
from pipeline.inference.photographs.restore import Handling, load_rows_restorer
from pipeline.inference.photographs.restore_all import print_line, restore_all
from pipeline.inference.photographs.writing import LIMITS, QUALITY
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import write_text
from pipeline.runtime.messages import library_messages_hidden
from pipeline.runtime.paths import find_model

FALLBACK = Evaluate(
    precision="fp32", threads=1, batch=1, processes=0, lpips_weights=None,
    tile=512, tile_overlap=64, kept_images=0,
)  # fmt: skip
"""Where there is no params.yaml; threads: all processors instead."""
MAX_MEGAPIXELS = 250
"""A header may claim any size; phones make 200 megapixels."""

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
    if arguments.compare and arguments.compare.is_dir():
        raise UserError(f"--compare {shown(arguments.compare)}: is a folder; expected a file")
    _require_writable(arguments.out)
    models = [find_model(model) for model in arguments.model]
    naming = Naming(arguments.out, arguments.format, arguments.suffix, arguments.overwrite,
                    arguments.skip_existing)  # fmt: skip
    handling = Handling(
        round(arguments.max_megapixels * 1e6), arguments.strength, arguments.quality,
        arguments.lenient, arguments.overwrite, arguments.skip_existing,
    )  # fmt: skip
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    with library_messages_hidden():
        listing = list_photographs(arguments.inputs, arguments.out)
        planned = plan(listing, naming)
        for line in (refused := listing.refused + planned.refused):
            print_line(console, f"error: {line}")
        restore_rows = load_rows_restorer(models, settings)
        say_niqe = _niqe(arguments.niqe, handling) if arguments.niqe else None
        begun = time.monotonic()
        done, meanwhile = restore_all(planned.accepted, restore_rows, handling)
        if arguments.compare:
            _write_comparison(arguments, done, handling)
        if say_niqe:
            say_niqe(done)
    failed = len(planned.accepted) - len(done) - meanwhile
    skipped = planned.skipped + meanwhile
    summary = (
        f"{len(done)} restored into {shown(arguments.out)} in {time.monotonic() - begun:.1f} s"
    )
    summary += f", {failed + len(refused)} failed" if failed or refused else ""
    summary += f", {skipped} were there already" if skipped else ""
    print(summary + _left_alone(listing))
    return FAILED_STATUS if failed or refused else 0


def _write_comparison(arguments: argparse.Namespace, done: list[Order], handling: Handling) -> None:
    from pipeline.report.before_after import before_after_page  # imports matplotlib

    pairs = [(order.source, order.target) for order in done]
    page = before_after_page(pairs, ", ".join(arguments.model), handling.largest_pixels)
    write_text(arguments.compare, page)


def _niqe(clean: Path, handling: Handling) -> Callable[[list[Order]], None]:
    """Return what prints NIQE of photographs, after fitting it, so that errors come first."""
    from pipeline.report.without_truth import fit_below, niqe_lines  # imports scipy

    natural = fit_below(clean, handling.largest_pixels)

    def say(done: list[Order]) -> None:
        pairs = [(order.source, order.target) for order in done]
        for line in niqe_lines(pairs, natural, handling.largest_pixels):
            print(shown(line))

    return say


def _left_alone(listing: Listing) -> str:
    text = ""
    if listing.others:
        endings = sorted({file.suffix.lower() or "no ending" for file in listing.others})
        text = f", {len(listing.others)} other files left alone ({shown(', '.join(endings))})"
    if listing.left_out:
        names = sorted({folder.name for folder in listing.left_out})
        text += (
            f", {len(listing.left_out)} folders of hidden files, thumbnails or trash left alone"
            f" ({shown(', '.join(names))})"
        )
    return text


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
    given.add_argument("--compare", type=Path, metavar="FILE.html",
                       help="page of each photograph before and after, with a slider")  # fmt: skip
    given.add_argument("--niqe", type=Path, metavar="CLEAN_DIR",
                       help="print NIQE before and after, by clean photographs")  # fmt: skip
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
