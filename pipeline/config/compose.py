"""Compose ``pipeline/conf`` into params.yaml, byte for byte as ``dvc exp run`` does."""

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pipeline.config.build import ConfigError
from pipeline.config.like import CONF as CONF
from pipeline.config.like import register
from pipeline.config.params import PARAMS_FILE
from pipeline.config.read import check, read_values
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import replacing

LISTS = ("sources", "tasks", "methods")
"""Groups of which several choices are made at once."""
SINGLE = ("preset", "restorer")
"""Those of which one is."""
GROUPS = (*LISTS, *SINGLE, "experiment")
ABSENT = "nothing"
"""What is printed of a setting that a file does not have."""


def compose(overrides: list[str], output: Path = PARAMS_FILE) -> None:
    """Write the composed and checked configuration; an invalid one leaves the file as it was.

    Raises:
        UserError: an override names no known key or group, or a value is not allowed.
    """
    from dvc.utils.hydra import compose_and_dump
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    register()
    with replacing(output) as partial:
        staged = partial.with_suffix(".yaml")  # the ending decides the format
        try:
            _require_known(overrides)
            compose_and_dump(staged, str(CONF), None, "config", str(CONF), overrides)
            check(OmegaConf.to_container(OmegaConf.load(staged)))
            staged.replace(partial)
        except (HydraException, OmegaConfBaseException, YAMLError, ValueError) as error:
            raise UserError(_in_words(overrides, str(error))) from None
        finally:
            staged.unlink(missing_ok=True)


def require_same_preset(overrides: list[str], params: Path = PARAMS_FILE) -> None:
    """Refuse to compose another preset than the file holds, unless an override says which.

    Everything is composed from the defaults: what was chosen before would be lost without a word.

    Raises:
        UserError: names both, and the overrides that keep or change it.
    """
    held = _preset(params, r"^preset: (\S+)$")
    default = _preset(CONF / "config.yaml", r"^  - preset: (\S+)$")
    if held in (None, default) or any(override.startswith("preset=") for override in overrides):
        return
    raise UserError(
        f"{params.name} holds preset={held}, and overrides go with preset={default} unless they say"
        f" otherwise; add preset={held} to keep it, or preset={default}"
    )


def _preset(path: Path, pattern: str) -> str | None:
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    found = re.search(pattern, text, re.MULTILINE)
    return found[1] if found else None


def changes(before: Path, after: Path) -> list[str]:
    """Return a line for each setting that two files have differently; none without the first.

    A section that only one of them has is one line. So is a first file that cannot be read.
    """
    if not before.is_file():
        return []
    try:
        old = read_values(before)
    except UserError as error:
        return [f"all of it is written anew: {error}"]
    return list(_changes(old, read_values(after), ""))


def _changes(old: Any, new: Any, key: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in dict.fromkeys((*old, *new)):
            yield from _changes(old.get(name, ABSENT), new.get(name, ABSENT), f"{key}.{name}")
    elif old != new:
        yield f"{key[1:] or 'all of it'}: {_short(old)} -> {_short(new)}"


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return f"a section of {len(flat(value))} settings"
    return str(value)


def flat(settings: Any, key: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted names; a list counts as one value."""
    if not isinstance(settings, dict):
        return {key: settings}
    inner = (flat(value, f"{key}.{name}".lstrip(".")) for name, value in settings.items())
    return {name: value for found in inner for name, value in found.items()}


def _require_known(overrides: list[str]) -> None:
    """Refuse what Hydra accepts in silence, or refuses in words of its own.

    Raises:
        ConfigError: a sweep, a group without a choice, an unknown or a double one, or two choices
            that write to one key: one of them would be lost.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    for override in OverridesParser.create().parse_overrides(overrides):
        group = override.key_or_group
        if override.is_sweep_override():
            raise ConfigError(_of_sweep(override.input_line or "", group))
        if not group:
            raise ConfigError(f"found {override.input_line!r}, expected key=value,"
                              " such as train.steps=2500")  # fmt: skip
        if group in GROUPS:
            _require_choice(group, None if override.is_delete() else override.value())


def _of_sweep(given: str, key: str) -> str:
    value = given.partition("=")[2]
    if "(" in value:
        return f"found {given!r}, which means several values; a list is written {key}=[0,1]"
    return (
        f"found {given!r}; a list is written {key}=[{value}], a text with a comma"
        f" '{key}=\"{value}\"'"
    )


def _require_choice(group: str, chosen: Any) -> None:
    known = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
    one = f"{group}={known[0]}"
    example = f"{group}=[{known[0]}]" if group in LISTS else one
    names = chosen if isinstance(chosen, list) and group not in SINGLE else [chosen]
    for name in names:
        if not isinstance(name, str):
            found = "nothing" if chosen is None else repr(chosen)
            raise ConfigError(f"{group}: found {found}, expected one of {', '.join(known)},"
                              f" such as {example}")  # fmt: skip
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ConfigError(f"{group}: found {name!r}, expected one of {', '.join(known)}{hint}")
    if len(set(names)) < len(names):
        raise ConfigError(f"{group}: found [{','.join(names)}], expected each name once")
    owner: dict[str, str] = {}
    for name in names if group in LISTS else ():
        for key in _keys(group, name):
            first = owner.setdefault(key, name)
            if first != name:
                raise ConfigError(
                    f"{group}: found {first} and {name}, which are both {group}.{key}: one would"
                    " replace the other; expected one of the two"
                )


def _keys(group: str, name: str) -> Iterable[str]:
    """Return the keys that a choice writes to below its group."""
    from omegaconf import OmegaConf

    values: Any = OmegaConf.to_container(OmegaConf.load(CONF / group / f"{name}.yaml"))
    return [key for key in values if key != "defaults"]


def _in_words(overrides: list[str], reason: str) -> str:
    """Return what Hydra found wrong with overrides, and what would be right."""
    reason = " ".join(reason.partition("See https://hydra.cc")[0].split())
    if found := re.match(r"Could not override '([^']+)'", reason):
        return (
            f"found the key {found[1]!r}, which there is not{_nearest(found[1])}; expected one of"
            f" params.yaml's or a group of README.md's; a new one begins with '+': +{found[1]}=..."
        )
    if (culprit := _unreadable(overrides)) is not None:
        key, equals, value = culprit.partition("=")
        if not equals or not key:
            return f"found {culprit!r}, expected key=value, such as train.steps=2500"
        if value.startswith(("[", "{")):
            return f"found {culprit!r}; a list is written {key}=[a,b], keys and values {{a:1,b:2}}"
        key, value = (part.strip("'\" ") for part in (key, value))
        return (
            f"found {culprit!r}; letters beyond A-Z, spaces, quotes, brackets and the like want"
            f" quotes around the value, and the whole in others for the shell: '{key}=\"{value}\"'"
        )
    if found := re.match(r"Error merging override (.+)", reason):
        return f"found {found[1]!r}, another kind of value than {PARAMS_FILE} has there"
    return f"overrides {overrides}: {reason}"


def _unreadable(overrides: list[str]) -> str | None:
    """Return the first override that Hydra's grammar does not have."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    for override in overrides:
        try:
            OverridesParser.create().parse_overrides([override])
        except (HydraException, ValueError):  # the latter: a number of thousands of digits
            return override
    return None


def _nearest(key: str) -> str:
    try:
        known = flat(read_values())
    except UserError:
        return ""
    near = get_close_matches(key, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
