"""The Dockerfile's steps one by one in a clean tree of Debian, as no daemon is here that builds it.

The tree stands for the image that the Dockerfile begins with: the same release of Debian, whose own
Python is the image's. Root alone can make it; ``make test-all`` installs debootstrap.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.test_container import ROOT, STEPS, steps
from tests.helpers.workspace import clone

pytestmark = pytest.mark.slow

USER = "54321"
"""A number without a name, as ``docker run --user`` gives."""
PYTHON = "/usr/local/python"
# in a view of the disks of its own, so that nothing stays mounted: what follows "--" is run there
MOUNT = """
set -e
tree="$1"
shift
while test "$1" != --; do
    if test -d "$1"; then mkdir -p "$tree$2"; else mkdir -p "$tree${2%/*}"; : >> "$tree$2"; fi
    mount --rbind "$1" "$tree$2"
    shift 2
done
shift
exec chroot "$tree" "$@" < /dev/null
"""


class Tree:
    """A root of its own: what a container would have."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {"PATH": f"{PYTHON}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"}
        self.work = "/"
        self.mounted = {"/proc": "/proc", "/dev": "/dev", "/etc/resolv.conf": "/etc/resolv.conf"}
        self.pip = _own_pip()
        for words in self.pip.values():
            for word in words.split():
                path = word.removeprefix("file://")
                if path != word:  # an index: its files lie beside it
                    path = str(Path(path).parent)
                if path.startswith("/") and Path(path).exists():
                    self.mounted[path] = path

    def run(self, script: str, user: str = "0") -> str:
        """Run a line of shell in it, which must succeed; return what it printed."""
        places = [place for pair in self.mounted.items() for place in pair]
        variables = [f"{name}={value}" for name, value in {**self.pip, **self.environment}.items()]
        done = subprocess.run(
            [
                "unshare", "--mount", "sh", "-c", MOUNT, "sh", str(self.folder), *places, "--",
                "setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "env", "-i",
                *variables, "sh", "-c", f"cd {shlex.quote(self.work)} && {script}",
            ],
            capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, f"{script}: {done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def build(self) -> None:
        """Do what the Dockerfile says, from its second step on."""
        for word, rest in STEPS:
            if word == "RUN":
                self.run(rest)
            elif word == "COPY":
                source, target = rest.split()
                shutil.copy(ROOT / source, self.folder / target.lstrip("/"))
            elif word == "ENV":
                self.environment |= dict(pair.split("=", 1) for pair in shlex.split(rest))
            elif word == "WORKDIR":
                (self.folder / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
                self.work = rest


def _own_pip() -> dict[str, str]:
    """Return what pip is told on this machine about where packages are, as variables."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.findall(r"^\S+?\.([\w-]+)='(.*)'$", listed, re.M)
    return {f"PIP_{name.upper().replace('-', '_')}": value for name, value in found}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tree]:
    """The tree that stands for the image, not yet built upon."""
    tools = ("debootstrap", "unshare", "setpriv")
    if os.getuid() or any(shutil.which(tool) is None for tool in tools):
        pytest.skip(f"needs root and {', '.join(tools)}")
    folder = tmp_path_factory.mktemp("container") / "tree"
    release = steps("FROM")[0].rpartition("-")[2]
    made = subprocess.run(
        [
            "debootstrap", "--variant=minbase", "--include=python3-venv,ca-certificates", release,
            str(folder),
        ],
        capture_output=True, text=True,
    )  # fmt: skip
    if made.returncode:
        shutil.rmtree(folder, ignore_errors=True)
        pytest.skip(f"no Debian {release} to be had: {made.stdout.strip()[-200:]}")
    tree = Tree(folder)
    tree.run(f"python3 -m venv {PYTHON}")
    yield tree
    shutil.rmtree(folder)


def test_its_steps_make_what_runs_the_whole_graph_for_any_user(
    tree: Tree, one_task: Path, tmp_path: Path
) -> None:
    (image,) = steps("FROM")
    version = tree.run("python -c 'import sys; print(\"%d.%d\" % sys.version_info[:2])'").strip()
    assert image.startswith(f"python:{version}-")
    tree.build()

    project = clone(one_task, tmp_path / "project").folder
    tree.mounted[str(project)] = tree.work
    for path in (project, *project.rglob("*")):
        os.chown(path, int(USER), int(USER), follow_symlinks=False)
    (command,) = steps("CMD")
    assert "restore" in tree.run(shlex.join(json.loads(command)), USER)
    tree.run("dvc repro", USER)
    assert (project / "reports" / "report.html").is_file()
    summary = json.loads((project / "reports" / "summary.json").read_text())
    assert summary
    # DVC and Snakemake agree that nothing is left to do
    assert "up to date" in tree.run("dvc status", USER)
    owned = f"find / -xdev -user {USER} -not -path '{tree.work}*' -not -path '/proc/*'"
    assert tree.run(owned) == "", "what it writes lies in the checkout"
