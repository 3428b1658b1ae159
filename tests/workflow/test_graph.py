"""dvc.yaml against the code: dependencies against imports, params against the keys read, paths."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import yaml
from dvc.repo import Repo

from pipeline.config.params import Params
from pipeline.config.read import read_params
from pipeline.config.sources import FetchedSource
from pipeline.runtime import CHANGES_NO_RESULT, paths
from pipeline.sources.fetch import FETCHED

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted(path.stem for path in (ROOT / "stages").glob("[a-z]*.py"))

PLUMBING = ("pipeline/__init__.py", "stages/__init__.py",
            *(f"pipeline/{folder}/" for folder in CHANGES_NO_RESULT))  # fmt: skip

# Modules that a stage loads by the name that its settings give.
LOADED_BY_NAME = {
    "download": ["pipeline/sources/bundled.py"],
    "prepare": ["pipeline/sources/bundled.py"],
    "pretrain": ["pipeline/methods/vanilla.py", "pipeline/models/restorers/nafnet.py"],
    "train": [
        *(str(path.relative_to(ROOT)) for path in (ROOT / "pipeline/methods").glob("*.py")),
        "pipeline/models/restorers/nafnet.py",
    ],
    "evaluate": ["pipeline/models/restorers/nafnet.py"],
}


@pytest.fixture(scope="module")
def stages() -> dict[str, Any]:
    """One stage of each script, as DVC resolves it."""
    found = {}
    for stage in Repo(str(ROOT)).index.stages:
        found[re.findall(r"-m stages\.(\w+)", stage.cmd)[0]] = stage
    return found


@pytest.fixture(scope="module")
def params() -> Params:
    return read_params(ROOT / "params.yaml")


def module_file(name: str) -> Path | None:
    path = ROOT.joinpath(*name.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def imports(file: Path) -> Iterator[Path]:
    """Yield the project's own files that a file imports at run time, at any depth of it."""
    tree = ast.parse(file.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and id(node) not in typing_only:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            if name.split(".")[0] in ("pipeline", "stages") and (found := module_file(name)):
                yield found


def closure(start: list[Path]) -> set[str]:
    todo, seen = list(start), set()
    while todo:
        file = todo.pop()
        name = file.relative_to(ROOT).as_posix()
        if name in seen or name.startswith(PLUMBING) or has_only_a_docstring(file):
            continue
        seen.add(name)
        parents = [file.parent / "__init__.py"] if file.parent.name != "pipeline" else []
        todo += [*imports(file), *(parent for parent in parents if parent.is_file())]
    return seen


def has_only_a_docstring(file: Path) -> bool:
    return all(isinstance(node, ast.Expr) for node in ast.parse(file.read_text()).body)


def test_every_script_is_a_stage_and_every_stage_a_script(stages: dict[str, Any]) -> None:
    assert sorted(stages) == SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS)
def test_dependencies_are_the_imports(stages: dict[str, Any], script: str) -> None:
    by_name = [ROOT / name for name in LOADED_BY_NAME.get(script, [])]
    needed = closure([ROOT / "stages" / f"{script}.py", *by_name])
    declared = {
        dep.def_path
        for dep in stages[script].deps
        if dep.def_path.startswith(("pipeline/", "stages/"))
    }
    uncovered = {name for name in needed if not any(covers(path, name) for path in declared)}
    assert not uncovered, f"{script} imports what dvc.yaml does not name"
    idle = {path for path in declared if not any(covers(path, name) for name in needed)}
    assert not idle, f"dvc.yaml names for {script} what it does not import"


def covers(path: str, name: str) -> bool:
    return name == path or name.startswith(f"{path}/")


KINDS = get_args(get_type_hints(FetchedSource)["kind"])


@pytest.mark.parametrize("kind", KINDS)
def test_dependencies_of_published_data_sets_are_the_imports(kind: str) -> None:
    started = {"download": ["fetch/__init__.py"], "prepare": [f"{kind}.py"]}
    templates = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    for script, modules in started.items():
        written = templates[script]["do"]["deps"]
        declared = {dep.replace("${item.kind}", kind).replace("${item.location}", FETCHED)
                    for dep in written}  # fmt: skip
        start = [ROOT / "stages" / f"{script}.py"]
        needed = closure(start + [ROOT / "pipeline" / "sources" / name for name in modules])
        assert not {name for name in needed if not any(covers(dep, name) for dep in declared)}


class Recorder:
    """Stands for a part of Params and notes which keys are looked up."""

    def __init__(self, value: Any, key: str, read: set[str]) -> None:
        self.__dict__.update(value=value, key=key, read=read)

    def __getattr__(self, name: str) -> Any:
        if inspect.isfunction(method := getattr(type(self.value), name, None)):
            return method.__get__(self)  # so that what it looks up is noted, too
        return self._child(getattr(self.value, name), name)

    def __getitem__(self, name: str) -> Any:
        return self._child(self.value[name], name)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.value)

    def items(self) -> list[tuple[str, Any]]:
        return [(name, self[name]) for name in self.value]

    def _child(self, value: Any, name: str) -> Any:
        key = f"{self.key}.{name}".lstrip(".")
        self.read.discard(self.key)
        self.read.add(key)
        if isinstance(value, str | int | float | bool | None):
            return value
        return Recorder(value, key, self.read)


def keys_read(script: str, params: Params, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Run a stage's main with every library call replaced, and return the keys it looked up."""
    module = importlib.import_module(f"stages.{script}")
    read: set[str] = set()
    known = {"task": next(iter(params.tasks)), "method": "noise_space", "source": "skimage",
             "seed": params.seeds[0]}  # fmt: skip
    for name in ("download", "prepare", "synthesize", "evaluate"):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, Swallow())
    if script == "evaluate":
        monkeypatch.setattr("pipeline.inference.model.load_model", Swallow())
    if script in ("pretrain", "train"):
        monkeypatch.setattr("pipeline.training.loop.train", Swallow())
    names = module.main.__code__.co_varnames[1 : module.main.__code__.co_argcount]
    module.main(Recorder(params, "", read), **{name: known[name] for name in names})
    return read


class Swallow:
    """Takes any call and gives nothing back that matters."""

    def __call__(self, *args: Any, **kwargs: Any) -> "Swallow":
        return self

    def __getattr__(self, name: str) -> "Swallow":
        return self


@pytest.mark.parametrize("script", [name for name in SCRIPTS if name != "report"])
def test_params_are_the_keys_read(
    stages: dict[str, Any], params: Params, script: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = keys_read(script, params, monkeypatch)
    declared = {key for dep in stages[script].params for key in dep.params}
    task = next(iter(params.tasks))
    # the stage that DVC resolved last may be another task's or method's
    declared = {normal(key, params, task) for key in declared}
    unread = {key for key in declared if not any(covers_key(key, other) for other in read)}
    undeclared = {key for key in read if not any(covers_key(other, key) for other in declared)}
    assert not undeclared, f"{script} reads what dvc.yaml does not declare"
    assert not unread, f"dvc.yaml declares for {script} what it does not read"


TRAINED = (paths.MODEL_FILE, paths.SNAPSHOTS_FILE, paths.LOG_FILE)


def normal(key: str, params: Params, task: str) -> str:
    parts = key.split(".")
    if parts[0] == "tasks" and len(parts) > 1:
        parts[1] = task
    if parts[0] == "methods" and len(parts) > 1:
        parts[1] = "noise_space"
    return ".".join(parts)


def covers_key(outer: str, inner: str) -> bool:
    return inner == outer or inner.startswith(f"{outer}.")


def test_outputs_lie_where_paths_says(stages: dict[str, Any], params: Params) -> None:
    repo = Repo(str(ROOT))
    declared = {out.def_path for stage in repo.index.stages for out in stage.outs}
    expected = {paths.raw(source) for source in params.sources}
    expected |= {paths.prepared(source) for source in params.sources}
    for task in params.tasks:
        degraded = paths.Run(task, paths.DEGRADED)
        expected |= {paths.task_images(task), degraded.evaluation, degraded.metrics}
        for seed in params.seeds:
            expected.add(paths.pretrained(task, seed) / paths.STATE_FILE)
            for method in params.methods:
                run = paths.Run(task, method, seed)
                expected |= {run.training / name for name in TRAINED}
                expected |= {run.evaluation, run.metrics}
    reports = ("report.md", "report.html", "tables", "figures", "summary.json")
    expected |= {paths.REPORTS / name for name in reports}
    assert declared == {path.as_posix() for path in expected}


def test_every_stage_says_what_it_does_and_needs(stages: dict[str, Any]) -> None:
    for script, stage in stages.items():
        assert stage.desc, script
        assert {"threads", "mem_mb", "runtime"} <= set(stage.meta["resources"]), script


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("stages.download", "torch h5py scipy skimage matplotlib jinja2"),
        ("stages.prepare", "torch scipy skimage matplotlib jinja2"),
        ("stages.synthesize", "torch skimage matplotlib jinja2"),
        ("stages.evaluate_degraded", "torch matplotlib jinja2"),
        ("stages.evaluate", "torch lightning_fabric diffusers matplotlib jinja2"),
        ("stages.report", "torch diffusers lightning_fabric"),
        ("stages.pretrain", "torch"),
        ("stages.train", "torch"),
        (
            "pipeline.training.loop",
            "torchmetrics torchvision scipy.stats diffusers skimage matplotlib dvc hydra",
        ),
        ("pipeline.models.restorers.nafnet", "torchvision torch._dynamo diffusers matplotlib"),
        ("pipeline.config.compose", "torch dvc hydra matplotlib"),
        ("pipeline.workflow.mend_lock", "torch dvc hydra matplotlib"),
        ("pipeline.workflow.snakemake", "torch dvc hydra matplotlib h5py"),
        ("pipeline.commands.vary", "torch dvc hydra matplotlib h5py snakemake"),
    ],
)
def test_nothing_heavier_than_needed_is_imported(module: str, heavy: str) -> None:
    code = (
        f"import sys, {module}; print(*(name for name in {heavy.split()} if name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
