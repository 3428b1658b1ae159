"""docs/settings.md: every key with its type, range, unit and value, read off the dataclasses."""

import dataclasses
import inspect
import tempfile
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pipeline.config.build import ANY, Interval, Setting
from pipeline.config.compose import CONF, compose
from pipeline.config.degradations import Degradation
from pipeline.config.methods import MethodSettings, ReleasedSettings
from pipeline.config.restorers import RestorerSettings
from pipeline.config.running import Evaluate, Report, Resources, Train
from pipeline.config.sources import BundledSource, FetchedSource, FolderSource
from pipeline.config.tasks import Task

PRESETS = ("demo", "tiny", "one_gpu", "paper")
TASKS = ("denoise", "derain", "deblur")
"""Those of the demo; the values of other tasks stand in pipeline/conf/tasks."""
INTRODUCTION = """# Settings

`python -m pipeline settings` writes this page from the dataclasses in `pipeline/config` and the
values in `pipeline/conf`; do not edit it by hand. Change a value with an override, for example
`dvc exp run -S train.steps=2500`.

A wrong key, type or value stops the command before any work. A range includes both of its ends.
An interval is `[lowest, highest]`: a random draw lies between the two. `-` says that there is no
value. Where a group of keys may be null, its first line says so.
"""
NAMES = {int: "whole number", float: "number", bool: "true or false", str: "text"}
PLURALS = {int: "whole numbers", float: "numbers", str: "texts"}
REFERENCES = {
    frozenset(get_args(Degradation)): "a [degradation](#degradations)",
    frozenset(get_args(RestorerSettings)): "a [restorer](#restorer)",
}
"""What stands in place of a union of dataclasses."""

Values = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Key:
    """One line of a table: a dotted name below its section, and what values it may have."""

    name: str
    type: str
    range: str
    unit: str


def settings_page() -> str:
    """Return the page; the values are composed as ``python -m pipeline compose`` does it."""
    values = {preset: _composed(preset) for preset in PRESETS}
    sections = [INTRODUCTION, *_whole_run(values), *_tasks(values["demo"]), *_methods(values)]
    sections += [*_restorers(), *_degradations(), *_sources()]
    return "\n".join(sections)


def keys(cls: type, prefix: str = "") -> Iterator[Key]:
    """Yield the keys of a dataclass and of those inside it, in the order of their definition."""
    hints = typing.get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        yield from _keys_of(hints[field.name], f"{prefix}{field.name}")


def _keys_of(kind: Any, name: str, limits: Setting = ANY, ending: str = "") -> Iterator[Key]:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        yield from _keys_of(arguments[0], name, arguments[1], ending)
    elif origin in (typing.Union, types.UnionType):
        candidates = [argument for argument in arguments if argument is not type(None)]
        ending = " or null" if len(candidates) < len(arguments) else ending
        if len(candidates) == 1:
            if dataclasses.is_dataclass(candidates[0]):
                yield Key(name, "null, or the keys below", "", "")
            yield from _keys_of(candidates[0], name, limits, ending)
        else:
            yield Key(name, REFERENCES[frozenset(candidates)] + ending, "", "")
    elif dataclasses.is_dataclass(kind):
        yield from keys(typing.cast(type, kind), f"{name}.")
    elif origin is dict and arguments[1] not in NAMES:
        yield from _keys_of(arguments[1], f"{name}.<name>", limits, ending)
    elif origin is tuple and dataclasses.is_dataclass(arguments[0]):
        yield from _keys_of(arguments[0], f"{name}[]", limits, ending)
    else:
        yield Key(name, _type_name(kind, limits) + ending, _range(limits), limits.unit)


def _type_name(kind: Any, limits: Setting) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        choices = ", ".join(f"`{choice}`" for choice in arguments)
        return f"one of {choices}" if len(arguments) > 1 else choices
    if origin is dict:
        return f"{PLURALS[arguments[1]]} by name"
    if origin is tuple and arguments[-1] is Ellipsis:
        if get_origin(arguments[0]) is tuple or arguments[0] not in PLURALS:
            return "list"
        return f"list of {PLURALS[arguments[0]]}"
    if origin is tuple:
        interval = limits.ordered and arguments == get_args(Interval)
        return "interval" if interval else f"two {PLURALS[arguments[0]]}"
    return NAMES[kind]


def _range(limits: Setting) -> str:
    if limits.low is None and limits.high is None:
        return ""
    if limits.high is None:
        return f"at least {shown(limits.low)}"
    if limits.low is None:
        return f"at most {shown(limits.high)}"
    return f"{shown(limits.low)} to {shown(limits.high)}"


def shown(value: Any) -> str:
    """Return a value as YAML writes it, in short."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, value))}]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _table(cls: type, columns: Mapping[str, Values]) -> str:
    """Return the keys of a class; each column holds values that are nested as the class is."""
    heads = ["key", "type", "range", "unit, meaning", *(f"`{name}`" for name in columns)]
    lines = [_line(heads), _line(["---"] * len(heads))]
    for key in keys(cls):
        found = [_value(values, key.name) for values in columns.values()]
        lines.append(_line([f"`{key.name}`", key.type, key.range, key.unit, *found]))
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _value(values: Values, name: str) -> str:
    found: Any = values
    for part in name.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return "-"
        found = found[part]
    if isinstance(found, Mapping):
        return str(found.get("kind", "keys"))
    return shown(found)


def _section(title: str, cls: type, columns: Mapping[str, Values], level: int = 2) -> str:
    text = inspect.cleandoc(cls.__doc__ or "").replace("``", "`")
    return f"{'#' * level} {title}\n\n{text}\n\n{_table(cls, columns)}"


def _whole_run(values: Mapping[str, Values]) -> Iterator[str]:
    yield (
        "## The run\n\n`preset` names the choice of values. `seeds` lists whole numbers of at least"
        " 0, each once: every method is trained with each of them.\n"
    )
    lists = ["preset", *PRESETS], ["---"] * 5
    seeds = ["`seeds`", *(shown(values[preset]["seeds"]) for preset in PRESETS)]
    yield "\n".join(map(_line, (*lists, seeds))) + "\n"
    for name, cls in {
        "train": Train, "evaluate": Evaluate, "report": Report, "resources": Resources,
    }.items():  # fmt: skip
        yield _section(f"`{name}`", cls, {preset: values[preset][name] for preset in PRESETS})


def _tasks(demo: Values) -> Iterator[str]:
    yield _section("`tasks.<task>`", Task, {name: demo["tasks"][name] for name in TASKS})


def _methods(values: Mapping[str, Values]) -> Iterator[str]:
    yield "## `methods.<method>`\n"
    for cls in get_args(MethodSettings):
        (kind,) = get_args(typing.get_type_hints(cls)["kind"])
        columns = {preset: values[preset]["methods"].get(kind, {}) for preset in PRESETS}
        yield _section(f"`{kind}`", cls, {} if cls is ReleasedSettings else columns, level=3)


def _restorers() -> Iterator[str]:
    from omegaconf import OmegaConf

    yield "## `restorer`\n"
    choices = {path.stem: OmegaConf.load(path) for path in sorted(CONF.glob("restorer/*.yaml"))}
    for cls in get_args(RestorerSettings):
        (kind,) = get_args(typing.get_type_hints(cls)["kind"])
        columns = {
            name: typing.cast(Values, OmegaConf.to_container(value))
            for name, value in choices.items()
            if value.kind == kind
        }
        yield _section(f"`{kind}`", cls, columns, level=3)


def _degradations() -> Iterator[str]:
    yield "## Degradations\n\nThe demo's values stand in `pipeline/conf/tasks`.\n"
    for cls in get_args(Degradation):
        (kind,) = get_args(typing.get_type_hints(cls)["kind"])
        yield _section(f"`{kind}`", cls, {}, level=3)


def _sources() -> Iterator[str]:
    yield "## `sources.<source>`\n\nThe values stand in `pipeline/conf/sources`.\n"
    for title, cls in {
        "`bundled`": BundledSource, "`folder`": FolderSource, "Published data sets": FetchedSource,
    }.items():  # fmt: skip
        yield _section(title, cls, {}, level=3)


def _composed(preset: str) -> Values:
    """Return the values of a preset with every method that needs no file of the user's."""
    from omegaconf import OmegaConf

    methods = sorted(path.stem for path in CONF.glob("methods/*.yaml") if path.stem != "released")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        compose([f"preset={preset}", f"methods=[{','.join(methods)}]"], path)
        return typing.cast(Values, OmegaConf.to_container(OmegaConf.load(path)))
