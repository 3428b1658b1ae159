"""Colours of wide or linear RGB profiles as sRGB, which networks are trained on, and back.

A profile of three primaries and a curve each (ICC.1:2010, 8.3.3) is inverted in numbers: nothing
is clipped, so a network that changes nothing changes no colour. LittleCMS inside Pillow would
round to 8 bits.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.images.pixels import Image
from pipeline.inference.photographs.reading import Form

Numbers = NDArray[np.float64]
SRGB_TO_XYZ = np.array(
    [[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]]
)
"""Of linear sRGB, adapted to D50 (IEC 61966-2-1 and ICC's sRGB profile)."""
NEAR = 2 / 255
"""Profiles whose colours are nowhere further from sRGB's than this are taken for sRGB."""
CURVE_STEPS = 65_536
HEADER_BYTES = 128


@dataclass(frozen=True)
class Colours:
    """Both directions between a photograph's colours and sRGB, (rows, width, 3) float32."""

    to_srgb: Callable[[Image], Image]
    from_srgb: Callable[[Image], Image]


SRGB = Colours(lambda image: image, lambda image: image)


@np.errstate(divide="raise", over="raise", invalid="raise")
def colours_of(form: Form) -> tuple[Colours, str | None]:
    """Return how to bring a photograph's colours to sRGB, and a note if its profile is no such."""
    profile = form.metadata.icc_profile
    if profile is None or form.channels < 3 or profile[16:20] != b"RGB ":
        return SRGB, None
    try:
        tags = _tags(profile)
        if not {b"rXYZ", b"gXYZ", b"bXYZ", b"rTRC", b"gTRC", b"bTRC"} <= tags.keys():
            return SRGB, None
        columns = [struct.unpack(">3i", tags[name][8:20]) for name in (b"rXYZ", b"gXYZ", b"bXYZ")]
        curves = [_curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC")]
        matrix = np.linalg.inv(SRGB_TO_XYZ) @ np.array(columns).T / 65_536
        made = _colours(matrix, curves)
        levels = np.linspace(0, 1, 9, dtype=np.float32)
        grid: Image = np.stack(np.meshgrid(*[levels] * 3), -1).reshape(1, -1, 3)
        there = made.to_srgb(grid)
        if np.abs(there - grid).max() <= NEAR:
            return SRGB, None
        if not np.abs(made.from_srgb(there) - grid).max() < NEAR:
            raise ValueError("not invertible")
    except (ValueError, LookupError, struct.error, np.linalg.LinAlgError, ArithmeticError):
        return SRGB, "colours were restored as if they were sRGB (the ICC profile is unusual)"
    return made, None


def _colours(matrix: Numbers, curves: list[tuple[Numbers, Numbers]]) -> Colours:
    back = np.linalg.inv(matrix)

    def to_srgb(image: Image) -> Image:
        linear = np.stack([_through(image[..., i], *curves[i]) for i in range(3)], axis=-1)
        return _encoded(linear @ matrix.T).astype(np.float32)

    def from_srgb(image: Image) -> Image:
        linear = _decoded(image.astype(np.float64)) @ back.T
        found = [_through(linear[..., i], *curves[i][::-1]) for i in range(3)]
        return np.stack(found, axis=-1).astype(np.float32)

    return Colours(to_srgb, from_srgb)


def _through(values: NDArray[np.floating], places: Numbers, levels: Numbers) -> Numbers:
    """Return a curve's levels, odd below 0 and straight on above its end."""
    size = np.abs(values.astype(np.float64))
    slope = (levels[-1] - levels[-2]) / (places[-1] - places[-2])
    above = levels[-1] + (size - places[-1]) * slope
    inside = np.interp(size, places, levels)
    found: Numbers = np.sign(values) * np.where(size > places[-1], above, inside)
    return found


def _encoded(linear: Numbers) -> Numbers:
    """Return linear numbers as sRGB encodes them (IEC 61966-2-1), odd below 0."""
    size = np.abs(linear)
    curved = 1.055 * np.maximum(size, 0.0031308) ** (1 / 2.4) - 0.055
    return np.sign(linear) * np.where(size <= 0.0031308, 12.92 * size, curved)


def _decoded(encoded: Numbers) -> Numbers:
    size = np.abs(encoded)
    curved = ((np.maximum(size, 0.04045) + 0.055) / 1.055) ** 2.4
    return np.sign(encoded) * np.where(size <= 12.92 * 0.0031308, size / 12.92, curved)


def _tags(profile: bytes) -> dict[bytes, bytes]:
    (count,) = struct.unpack(">I", profile[HEADER_BYTES : HEADER_BYTES + 4])
    if count > 1000:
        raise ValueError(f"{count} tags")
    tags = {}
    for place in range(HEADER_BYTES + 4, HEADER_BYTES + 4 + 12 * count, 12):
        name, start, size = struct.unpack(">4sII", profile[place : place + 12])
        tags[name] = profile[start : start + size]
    return tags


def _curve(tag: bytes) -> tuple[Numbers, Numbers]:
    """Return places and levels of a curve, both rising (ICC.1:2010, 10.5 and 10.15)."""
    places = np.linspace(0, 1, CURVE_STEPS)
    if tag[:4] == b"para":
        (kind,) = struct.unpack(">H", tag[8:10])
        count = (1, 3, 4, 5, 7)[kind]
        g, *rest = (
            value / 65_536 for value in struct.unpack(f">{count}i", tag[12 : 12 + 4 * count])
        )
        a, b, c, d, e, f = _parameters(kind, rest)
        levels = np.where(places >= d, np.maximum(a * places + b, 0) ** g + e, c * places + f)
    elif tag[:4] == b"curv":
        (count,) = struct.unpack(">I", tag[8:12])
        steps = np.frombuffer(tag[12 : 12 + 2 * count], ">u2").astype(np.float64)
        if len(steps) != count:
            raise ValueError("a curve ends early")
        if count < 2:
            levels = places ** (steps[0] / 256 if count else 1.0)
        else:
            places, levels = np.linspace(0, 1, count), steps / 65_535
    else:
        raise ValueError(f"a curve of kind {tag[:4]!r}")
    rising = np.concatenate([[True], np.diff(levels) > 0])
    if rising.sum() < 2 or (np.diff(levels) < 0).any():
        raise ValueError("a curve that does not rise")
    return places[rising], levels[rising]


def _parameters(kind: int, rest: list[float]) -> tuple[float, float, float, float, float, float]:
    """Return a, b, c, d, e, f of the fullest kind of curve."""
    if kind == 0:
        return 1.0, 0.0, 0.0, 0.0, 0.0, 0.0
    a, b, *more = rest
    if kind in (1, 2):
        offset = more[0] if more else 0.0
        return a, b, 0.0, -b / a, offset, offset
    if kind == 3:
        return a, b, more[0], more[1], 0.0, 0.0
    return a, b, more[0], more[1], more[2], more[3]
