"""What README.md shows of the results: a table from summary.json, and a strip of pictures."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

from PIL import ExifTags, Image

from pipeline.config.params import Params
from pipeline.report.collect import collect
from pipeline.report.examples.choice import Example, Examples, choose, mean_gains, open_pictures
from pipeline.report.examples.grids import image_grid
from pipeline.report.summary import Row
from pipeline.report.tables.published import of_task
from pipeline.runtime.errors import UserError
from pipeline.runtime.paths import DEGRADED

BEGIN = "<!-- results: written by 'python -m pipeline readme' -->"
END = "<!-- end of results -->"
BASE, METHOD = "vanilla", "noise_space"
STRIP = Path("docs/strip.webp")
PICTURE = f"""![Two test images of the demo: degraded, by vanilla, by noise_space, clean]({STRIP})

Two test images, chosen by rule: of all that are stored, the upper quartile and the median of the
gain. Each picture is the middle of its image, pixel for pixel."""
EXPLAINED = """PSNR in dB, higher is better. *Gain* is `noise_space` minus `vanilla`. The *bound* is
trained on the truth of the real photographs, which no other method sees. *Headroom* is the bound
minus `vanilla`: what adaptation could gain at most. The last column is what the paper reports of
its own data and training; it cannot be compared with the rest."""
STRIP_BYTES = 200_000
QUALITIES = (90, 80, 70, 60, 50, 40, 30)
"""Of WebP, tried in this order until the strip is small enough."""
COLUMNS = (
    "task, test images", DEGRADED, BASE, METHOD, "bound", "gain", "headroom", "gain / headroom",
    "the paper's own: vanilla, adapted",
)  # fmt: skip


def with_results(readme: str, section: str) -> str:
    """Return README.md with another section of results.

    Raises:
        UserError: the text lacks one of the two marks around it.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError(f"README.md: expected the two lines {BEGIN} and {END}, found not both")
    return f"{before}{BEGIN}\n\n{section}\n{END}{after}"


def results(rows: Sequence[Row], bound_names: Sequence[str]) -> str:
    """Return the headline, the strip if there is one, the table and its origin as Markdown.

    Args:
        rows: of summary.json.
        bound_names: methods that were given the truth of real photographs.
    """
    groups = list(_by_data_set(rows))
    lines = [_line(COLUMNS), _line(["---", *["---:"] * (len(COLUMNS) - 1)])]
    tasks: set[str] = set()
    for group in groups:
        task = group[0]["task"]
        lines.append(_line(_cells(group, bound_names, first=task not in tasks)))
        tasks.add(task)
    parts = [_headline(groups[0], bound_names), "\n".join(lines), EXPLAINED, _origin(rows)]
    if STRIP.is_file():
        parts.insert(1, PICTURE)
    return "\n\n".join(parts) + "\n"


def strip(params: Params) -> bytes:
    """Return the strip as WebP: two images of the first task's real domain, four versions of each.

    Of the stored images in the order of the gain of ``noise_space`` over ``vanilla`` these are the
    upper quartile and the median. Its EXIF description holds the mean PSNR of each column in dB.

    Raises:
        UserError: an evaluation is missing, or one of the two methods.
    """
    for name in (BASE, METHOD):
        if name not in params.methods:
            found = ", ".join(params.methods)
            raise UserError(f"methods: found {found}, expected {name} among them")
    data_set = next(found for found in collect(params)[0].data_sets if found.of_real_domain)
    pictures = open_pictures(params, data_set, [BASE, METHOD])
    gains = mean_gains(data_set, METHOD, BASE)
    stored = {image: gains[image] for image in pictures.stored_by_all()}
    rows = [
        Example(image, f"{name} gain, {gains[image]:+.2f} dB", pictures.panels(data_set, image))
        for name, image in quartiles(stored).items()
    ]
    means = {name: float(data_set.psnr[name].mean()) for name in (DEGRADED, BASE, METHOD)}
    return encoded(Examples("", tuple(rows)), means)


def quartiles(gains: dict[str, float]) -> dict[str, str]:
    """Return the images of the upper quartile and of the median gain."""
    five = choose(gains, 5)  # the largest, the quartiles, the smallest
    upper, median = five[1:3] if len(five) == 5 else (five[0], five[-1])
    return {"upper quartile of the": upper, "median": median}


def encoded(shown: Examples, means: dict[str, float]) -> bytes:
    """Return the pictures side by side as WebP of less than ``STRIP_BYTES``."""
    picture = Image.open(io.BytesIO(image_grid("", "", shown, "strip").png)).convert("RGB")
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = json.dumps(
        {name: round(psnr, 6) for name, psnr in means.items()}
    )
    for quality in QUALITIES:
        buffer = io.BytesIO()
        picture.save(buffer, format="webp", quality=quality, method=6, exif=exif)
        if buffer.tell() < STRIP_BYTES:
            return buffer.getvalue()
    raise UserError(f"{STRIP}: {buffer.tell()} bytes at the lowest quality, expected {STRIP_BYTES}")


def _by_data_set(rows: Sequence[Row]) -> list[list[Row]]:
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["task"], row["data_set"]), []).append(row)
    return list(groups.values())


def _psnr(group: Sequence[Row], names: Sequence[str]) -> float | None:
    """Return the PSNR of the first of these methods, mean over images and seeds; None if none."""
    return next((row["psnr_mean_seeds"] for row in group if row["method"] in names), None)


def _gains(group: Sequence[Row], bound_names: Sequence[str]) -> tuple[float | None, float | None]:
    """Return gain and headroom in dB."""
    base, adapted, bound = (_psnr(group, n) for n in ([BASE], [METHOD], bound_names))
    if base is None:
        return None, None
    return (None if adapted is None else adapted - base), (None if bound is None else bound - base)


def _cells(group: Sequence[Row], bound_names: Sequence[str], first: bool) -> list[str]:
    task, data_set = group[0]["task"], group[0]["data_set"]
    gain, headroom = _gains(group, bound_names)
    headroom = headroom if first else None  # what was trained on one domain bounds no other
    scores = [_psnr(group, names) for names in ([DEGRADED], [BASE], [METHOD], bound_names)]
    percent = None if gain is None or not headroom or headroom < 0 else 100 * gain / headroom
    published = {row.ours: row for row in of_task(task)} if first else {}
    theirs = "-"
    if {BASE, METHOD} <= published.keys():
        numbers = f"{published[BASE].psnr:.2f}, {published[METHOD].psnr:.2f}"
        theirs = f"*{numbers} ({published[METHOD].data_set})*"
    return [
        f"{task}, {data_set}", *(_number(score, "{:.2f}") for score in scores),
        _number(gain, "{:+.2f}"), _number(headroom, "{:+.2f}"), _number(percent, "{:.0f} %"),
        theirs,
    ]  # fmt: skip


def _headline(group: Sequence[Row], bound_names: Sequence[str]) -> str:
    """Return in one sentence what was gained on the first data set."""
    gain, headroom = _gains(group, bound_names)
    if gain is None:
        return f"The committed results have no row of both {BASE} and {METHOD}."
    whole = f" of the {headroom:.2f} dB that training on the truth gains" if headroom else ""
    verb, amount = ("gains", gain) if gain >= 0 else ("loses", -gain)
    return f"**On {group[0]['task']}, adaptation {verb} {amount:.2f} dB{whole}.**"


def _origin(rows: Sequence[Row]) -> str:
    """Return what the numbers were made with: protocol, network, updates, seed, commit."""
    models = [row for row in rows if row["seed"] is not None]
    scenes = ", ".join(dict.fromkeys(f"{row['images']} of {row['scenes']} scenes" for row in rows))
    seeds = ", ".join(dict.fromkeys(str(row["seed"]) for row in models))
    said = {
        "Images": scenes,
        "protocol": _distinct(rows, "protocol"),
        "restorer": _distinct(models, "restorer"),
        "updates": _distinct(models, "steps"),
        "seed": seeds,
        "device": _distinct(models, "device"),
        "commit": ", ".join(dict.fromkeys(str(row["commit"])[:7] for row in rows)),
    }
    return "; ".join(f"{name}: {text}" for name, text in said.items()) + "."


def _distinct(rows: Sequence[Row], name: str) -> str:
    return ", ".join(dict.fromkeys(str(row[name]) for row in rows))


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
