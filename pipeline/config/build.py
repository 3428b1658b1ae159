"""Turn the plain values of params.yaml into frozen dataclasses, or say exactly what is wrong.

A dataclass names the type of a value; ``Setting`` adds its unit and allowed range.
No value has a default here: values live in ``pipeline/conf``, meaning lives in the dataclasses.
"""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

from pipeline.runtime.errors import UserError

Interval = tuple[float, float]
"""Lowest and highest value that a random draw may take, both included."""


class ConfigError(UserError):
    """A key or value of the configuration is wrong; names the key, the finding, the allowance."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """Beside a type in ``Annotated``: its numbers must lie in [low, high]; unit explains them.

    Two numbers are an interval, lowest first, unless ``ordered`` is false.
    """

    low: float | None = None
    high: float | None = None
    unit: str = ""
    ordered: bool = True

    def allows(self, value: float) -> bool:
        """Return whether a number is finite and within the range."""
        too_low = self.low is not None and value < self.low
        too_high = self.high is not None and value > self.high
        return math.isfinite(value) and not too_low and not too_high

    def __str__(self) -> str:
        """Return the allowed range and unit, to be read after "a number"."""
        if self.low is None and self.high is None:
            text = ""
        elif self.high is None:
            text = f" of at least {self.low}"
        elif self.low is None:
            text = f" of at most {self.high}"
        else:
            text = f" from {self.low} to {self.high}"
        return f"{text} ({self.unit})" if self.unit else text


ANY = Setting()
INVISIBLE = frozenset({"size", "nfiles"})
"""Keys that DVC's run cache leaves out of a stage's signature, at any depth (issue 10296 of DVC):
a change of such a value would bring back the results of the old one."""

LARGEST = 2**63 - 1
"""What torch and NumPy hold as a whole number."""


def build(cls: Any, value: Any, key: str, limits: Setting = ANY) -> Any:
    """Return ``value`` as an instance of the type ``cls``.

    Args:
        cls: a dataclass, int, float, bool, str, Literal, ``X | None``, ``dict[str, X]``,
            ``tuple[X, ...]``, ``tuple[X, Y]`` or a union of dataclasses told apart by the one
            Literal field that they share.
        value: plain values as YAML gives them.
        key: dotted name of the value, for the error.
        limits: of the numbers in the value.

    Raises:
        ConfigError: unknown or missing key, wrong type, value out of range.
    """
    origin, arguments = get_origin(cls), get_args(cls)
    if origin is Annotated:
        return build(arguments[0], value, key, arguments[1])
    if origin in (typing.Union, types.UnionType):
        return _build_union(arguments, value, key, limits)
    if dataclasses.is_dataclass(cls):
        return _build_dataclass(cls, value, key)
    if origin is Literal:
        if value not in arguments:
            names = [str(argument) for argument in arguments]
            raise ConfigError(
                f"{key}: found {value!r}, expected one of {', '.join(names)}"
                f"{_nearest(value, names)}"
            )
        return value
    if origin is dict:
        _require_mapping(value, key)
        return {name: build(arguments[1], item, f"{key}.{name}") for name, item in value.items()}
    if origin is tuple:
        return _build_tuple(arguments, value, key, limits)
    return _build_scalar(cls, value, key, limits)


def _build_dataclass(cls: Any, value: Any, key: str) -> Any:
    _require_mapping(value, key)
    fields = [field.name for field in dataclasses.fields(cls)]
    prefix = f"{key}." if key else ""
    for name in value:
        if name not in fields:
            raise ConfigError(
                f"{prefix}{name}: unknown key{_nearest(name, fields)};"
                f" allowed here: {', '.join(fields)}"
            )
    for name in fields:
        if name not in value:
            raise ConfigError(f"{prefix}{name}: missing, expected a value")
    hints = typing.get_type_hints(cls, include_extras=True)
    made = {name: build(hints[name], value[name], f"{prefix}{name}") for name in fields}
    return cls(**made)


def _build_union(arguments: tuple[Any, ...], value: Any, key: str, limits: Setting) -> Any:
    if value is None and type(None) in arguments:
        return None
    candidates = [argument for argument in arguments if argument is not type(None)]
    if len(candidates) == 1:
        return build(candidates[0], value, key, limits)
    _require_mapping(value, key)
    tag, by_name = tagged(candidates)
    names = list(by_name)
    if value.get(tag) not in names:
        raise ConfigError(
            f"{key}.{tag}: found {value.get(tag)!r}, expected one of {', '.join(names)}"
            f"{_nearest(value.get(tag), names)}"
        )
    return build(by_name[value[tag]], value, key)


def tagged(candidates: list[Any]) -> tuple[str, dict[str, Any]]:
    """Return the name of the shared Literal field and the dataclass for each of its values."""
    hints = [typing.get_type_hints(candidate) for candidate in candidates]
    tag = next(
        name for name in hints[0] if all(get_origin(hint.get(name)) is Literal for hint in hints)
    )
    by_name = {
        value: candidate
        for candidate, hint in zip(candidates, hints, strict=True)
        for value in get_args(hint[tag])
    }
    return tag, by_name


def _build_tuple(arguments: tuple[Any, ...], value: Any, key: str, limits: Setting) -> Any:
    if not isinstance(value, list | tuple):
        raise ConfigError(f"{key}: found {_show(value)}, expected a list")
    if arguments[-1] is Ellipsis:
        return tuple(
            build(arguments[0], item, f"{key}[{index}]", limits) for index, item in enumerate(value)
        )
    if len(value) != len(arguments):
        raise ConfigError(f"{key}: found {_show(value)}, expected a list of {len(arguments)}")
    made = tuple(
        build(kind, item, f"{key}[{index}]", limits)
        for index, (kind, item) in enumerate(zip(arguments, value, strict=True))
    )
    if limits.ordered and arguments == get_args(Interval) and made[0] > made[1]:
        raise ConfigError(f"{key}: found {_show(value)}, expected [lowest, highest]")
    return made


def _build_scalar(cls: type, value: Any, key: str, limits: Setting) -> Any:
    if cls is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, cls) or (cls is int and isinstance(value, bool)):
        kinds = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
        raise ConfigError(f"{key}: found {_show(value)}, expected {kinds[cls]}{limits}")
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ConfigError(f"{key}: found a number beyond 2^63, expected one{limits}")
    if isinstance(value, int | float) and not limits.allows(value):
        raise ConfigError(f"{key}: found {value}, expected a number{limits}")
    return value


def _require_mapping(value: Any, key: str) -> None:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key or 'params.yaml'}: found {_show(value)}, expected keys and values")
    for name in INVISIBLE.intersection(value):
        raise ConfigError(
            f"{key}.{name}: found {name!r} as a name, expected another:"
            " DVC's run cache does not see it"
        )


def _nearest(name: Any, names: list[str]) -> str:
    close = difflib.get_close_matches(str(name), names, n=1)
    return f", did you mean {close[0]!r}?" if close else ""


def _show(value: Any) -> str:
    return f"{value!r} ({type(value).__name__})"
