"""What several test modules share: a configuration, images, stores, a disk that is too small."""

import fcntl
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from omegaconf import OmegaConf

from pipeline.config.compose import compose
from pipeline.images.store import Record, write_store
from tests.helpers.workspace import Workspace, clone, copy, make_one_task_origin, make_origin

Pixels = NDArray[np.uint8]

LONGEST_WITHOUT_GRAPH = "test_restorers.py"
"""Of the modules that need no clone; tests/README.md says what it is for."""

# of this process and all that tests start: as many threads as processors in each of several
# processes are many times slower than one in each
os.environ.setdefault("OMP_NUM_THREADS", "1")
# what the make that runs these tests hands on would change those that tests start
for name in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES"):
    os.environ.pop(name, None)
# below nohup, or in the background of a script, all that tests start would ignore these signals
# too, which some of them send
signal.signal(signal.SIGHUP, signal.SIG_DFL)
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def _demo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path = tmp_path_factory.mktemp("conf") / "params.yaml"
    compose(["restorer=unet_small", "~methods.target_supervised"], path)
    return OmegaConf.to_container(OmegaConf.load(path))


@pytest.fixture
def values(_demo: dict[str, Any]) -> dict[str, Any]:
    """The composed configuration as plain values, to be changed at will."""
    return deepcopy(_demo)


@pytest.fixture
def pixels() -> Callable[..., Pixels]:
    """Return a random image: ``pixels(seed, height, width)``."""

    def make(seed: int, height: int = 12, width: int = 16) -> Pixels:
        return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)

    return make


@pytest.fixture
def pack() -> Callable[..., Path]:
    """Write a store of arrays: ``pack(path, {"id": ..., "clean": array, ...}, ...)``."""

    def make(path: Path, *images: dict[str, Any]) -> Path:
        write_store(path, [_record(**image) for image in images])
        return path

    return make


def _record(id: str, scene: str = "scene", data_set: str = "set", **roles: Pixels) -> Record:
    height, width, _ = next(iter(roles.values())).shape
    loaders = {role: lambda image=image: image for role, image in roles.items()}
    return Record(id, scene, data_set, height, width, **loaders)


def once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
    """Return a folder that one of the processes of this run of tests has built for all."""
    root = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    with (root / f"{name}.lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not lock.seek(0, os.SEEK_END):  # looked at with the lock held: nobody has built it
            build(root / name)
            lock.write("built")
    return root / name


@pytest.fixture(scope="session")
def three_tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository of the project with the tiny preset."""
    return once(tmp_path_factory, "three_tasks", make_origin)


@pytest.fixture(scope="session")
def one_task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository of the project whose defaults are one task of the tiny preset."""
    return once(tmp_path_factory, "one_task", make_one_task_origin)


@pytest.fixture(scope="session")
def pretrained(one_task: Path, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A clone of it in which only the methods are not trained yet. Copy it before use."""

    def build(folder: Path) -> None:
        clone(one_task, folder).succeed("dvc", "repro", "pretrain", "evaluate_degraded")

    return Workspace(once(tmp_path_factory, "pretrained", build))


@pytest.fixture(scope="session")
def finished(pretrained: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The same, finished by a plain ``dvc repro`` and committed. Copy it before use."""

    def build(folder: Path) -> None:
        workspace = copy(pretrained, folder)
        workspace.succeed("dvc", "repro")
        workspace.commit("results")

    return Workspace(once(tmp_path_factory, "finished", build))


@pytest.hookimpl(trylast=True)  # once what is not run has been left out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest modules, so that no process waits for the other at the end.

    Those of the graph share a clone. While one process makes it, the other has a module without.
    """
    graph = [item for item in items if _runs_the_graph(item)]
    first = graph[0].path if graph else None

    def place(item: pytest.Item) -> int:
        if item.path == first:
            return 0
        if item.path.name == LONGEST_WITHOUT_GRAPH:
            return 1
        return 2 if _runs_the_graph(item) else 3

    items.sort(key=place)


def _runs_the_graph(item: pytest.Item) -> bool:
    return "whole_graph" in item.path.parts or bool(item.get_closest_marker("graph"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB."""
    folder = tmp_path / "small_disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mount, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("no mount command")
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)
