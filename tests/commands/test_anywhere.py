"""Commands in folders that are no clone, another user's, read-only, or part of a larger one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.commands import COMMANDS
from tests.helpers import preloaded
from tests.helpers.workspace import environment, make_origin

ROOT = Path(__file__).parents[2]
GRAPH = """
stages:
  tables:
    cmd: mkdir -p reports/tables && cp in reports/tables/per_image.csv
    deps: [in]
    outs: [reports/tables]
"""
NEED_A_CLONE = [
    ("python", "-m", "pipeline", "mend_lock"),
    ("python", "-m", "pipeline", "check_cache"),
    ("python", "-m", "pipeline", "vary", "x"),
    ("python", "-m", "pipeline", "compare", "HEAD", "workspace"),
    ("snakemake", "-n"),
]


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_origin(tmp_path_factory.mktemp("anywhere") / "project")


def run(folder: Path, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=folder, env=environment(preloaded.bin()) | more, capture_output=True, text=True
    )


def error_of(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line of a user's mistake."""
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if not line.startswith("Using workflow")]
    assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    return lines[0].removeprefix("error: ")


def listing(folder: Path) -> dict[str, bytes]:
    """Return the content of all files, without what git and DVC keep for themselves."""
    hidden = {".git", "__pycache__", ".cache", "tmp"}
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    return {str(f): (folder / f).read_bytes() for f in files if not hidden & set(f.parts)}


@pytest.mark.parametrize("option", ["--help", "-h"])
@pytest.mark.parametrize("name", COMMANDS)
def test_help_does_nothing(name: str, option: str, tmp_path: Path) -> None:
    """In an empty folder: what looks for the project would fail."""
    done = run(tmp_path, "python", "-m", "pipeline", name, option, PYTHONPATH=str(ROOT))
    assert done.returncode == 0 and done.stdout.startswith("usage: "), done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_option_is_refused_before_any_work(name: str, tmp_path: Path) -> None:
    done = run(tmp_path, "python", "-m", "pipeline", name, "--bogus", PYTHONPATH=str(ROOT))
    assert done.returncode == 2 and "usage: " in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_terminal_without_our_letters_gets_others(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("step,loss\n1,0.5\n2,0.25\n")
    done = run(tmp_path, sys.executable, "-m", "pipeline", "watch", ".", PYTHONPATH=str(ROOT),
               PYTHONIOENCODING="ascii")  # fmt: skip
    assert done.returncode == 0 and "0.25" in done.stdout and "?" in done.stdout, done.stderr


def test_a_reader_that_has_read_enough_ends_a_command_in_silence(tmp_path: Path) -> None:
    """What was asked for is done all the same."""
    compose = [sys.executable, "-m", "pipeline", "compose"]
    given = environment() | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    subprocess.run(compose, cwd=tmp_path, env=given, check=True)
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*compose, "seeds=[3]"], cwd=tmp_path, env=given, stdout=writing,
                          stderr=subprocess.PIPE)  # fmt: skip
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")
    assert "seeds:\n- 3\n" in (tmp_path / "params.yaml").read_text()


def test_a_download_without_git_is_named(origin: Path, tmp_path: Path) -> None:
    shutil.copytree(origin, tmp_path / "zip", ignore=shutil.ignore_patterns(".git"))
    before = listing(tmp_path / "zip")
    for command in NEED_A_CLONE:
        told = error_of(run(tmp_path / "zip", *command))
        assert told.startswith("this folder is no git clone (a download without .git?)"), command
        assert "git init && git add . && git commit" in told
    after = listing(tmp_path / "zip")
    assert {name for name in after if not name.startswith(".snakemake")} == set(before)
    composed = run(tmp_path / "zip", "python", "-m", "pipeline", "compose", "seeds=[3]")
    assert composed.returncode == 0 and "seeds: [0] -> [3]" in composed.stdout


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_a_clone_of_another_user_is_named(origin: Path, tmp_path: Path) -> None:
    shutil.copytree(origin, tmp_path / "theirs")
    for path in (tmp_path / "theirs", *(tmp_path / "theirs").rglob("*")):
        os.chown(path, 65534, 65534, follow_symlinks=False)
    for command in NEED_A_CLONE:
        told = error_of(run(tmp_path / "theirs", *command))
        assert told.startswith("this clone belongs to another user"), command
        assert f"git config --global --add safe.directory {tmp_path / 'theirs'}" in told


@pytest.mark.skipif(os.getuid() != 0, reason="mounts a folder read-only")
def test_a_read_only_project_is_named(origin: Path, tmp_path: Path) -> None:
    place = tmp_path / "read_only"
    place.mkdir()
    mounts = (["mount", "--bind", str(origin), str(place)],
              ["mount", "-o", "remount,ro,bind", str(place)])  # fmt: skip
    if any(subprocess.run(mount, capture_output=True).returncode for mount in mounts):
        pytest.skip("cannot mount here")
    try:
        for command in NEED_A_CLONE[:3]:
            told = error_of(run(place, *command))
            assert "cannot be written to (read-only, or another user's)" in told, command
        told = error_of(run(place, "python", "-m", "pipeline", "compose"))
        assert "read-only or another user's; work in a folder of your own" in told
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_project_below_the_root_of_git_is_compared(tmp_path: Path) -> None:
    """As part of a larger repository; the tables are in DVC's cache alone."""
    project = tmp_path / "larger" / "deep" / "project"
    project.mkdir(parents=True)
    (project / "dvc.yaml").write_text(GRAPH)
    (project / "params.yaml").write_text("a: 1\n")
    rows = "task,data_set,protocol,scene,id,method,seed,psnr,ssim\nt,set,rgb,s,i,vanilla,0,20,0.5\n"
    (project / "in").write_text(rows)
    for command in ("git init -q ../..", "dvc init -q --subdir", "dvc repro -q", "git add -A ../..",
                    "git commit -qm start"):  # fmt: skip
        assert run(project, *command.split()).returncode == 0
    shutil.rmtree(project / "reports")
    (project / "params.yaml").write_text("a: 2\n")
    run(project, "dvc", "checkout")
    done = run(project, "python", "-m", "pipeline", "compare", "HEAD", "workspace",
               PYTHONPATH=str(ROOT))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "| a | 1 | 2 |" in done.stdout and "20.00" in done.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["preset=tiny"], "found 'preset=tiny' where the name of the experiment is expected"),
        (["a/b"], "'a/b' cannot name an experiment: letters, digits, '-' and '_' can"),
        (["x", "seeds=[99999999999]"], "seeds[0]: found 99999999999, expected a number from 0 to"),
        (["x", "seeds=[]"], "seeds: found nothing, expected at least one, such as seeds=[0]"),
        (["x", "-S", "train.batch=4"], "found -S, which is for 'dvc exp run'"),
        (
            ["x", "--", "-nq"],
            "found --dry-run among Snakemake's options, with which it does not run",
        ),
        (["x", "--", "-j", "1", "--unlock"], "found --unlock among Snakemake's options"),
        (["x", "--", "--directory=.."], "found --directory among Snakemake's options"),
        (["x", "--", "--touch"], "--touch: DVC judges what is up to date: dvc commit --force"),
        (["x", "--", "--bogus"], "options of Snakemake: unrecognized arguments: --bogus;"),
        (["x", "--", "--profile", "no"], "options of Snakemake: Using profiles no and"),
        (["x"], "params.yaml holds preset=tiny, and overrides go with preset=demo unless they say"),
    ],
)
def test_vary_refuses_before_any_work(origin: Path, words: list[str], told: str) -> None:
    before = listing(origin)
    if len(words) > 1 and "=" in words[1]:
        words = [*words, "preset=tiny"]
    assert told in error_of(run(origin, "python", "-m", "pipeline", "vary", *words))
    assert listing(origin).items() >= before.items()


def test_copies_are_refused_where_dvc_cannot_write_the_path(origin: Path, tmp_path: Path) -> None:
    """It writes ASCII alone, and what it cannot write it leaves empty."""
    shutil.copytree(origin, tmp_path / "d'é")
    local = tmp_path / "d'é" / ".dvc" / "config.local"
    before = "[core]\n    site_cache_dir = /before/.cache/dvc\n"
    local.write_text(before)
    for option in ("--temp", "--queue"):
        done = run(tmp_path / "d'é", "dvc", "exp", "run", option, "-S", "preset=tiny")
        assert done.returncode and "DVC cannot write the settings of a copy" in done.stderr
    words = ["dvc", "exp", "run", "-S", "preset=tiny"]
    plugin = f"import sys; sys.path[:0] = ['pipeline/workflow/hydra_plugins']; sys.argv = {words}"
    code = f"{plugin}; import before_exp_run, os; print(os.environ['DVC_SITE_CACHE_DIR'])"
    done = run(tmp_path / "d'é", "python", "-c", code)
    assert done.stdout == f"{tmp_path}/d'é/.cache/dvc\n", done.stderr
    assert local.read_text() == before


def test_vary_needs_a_name_in_git_and_its_programs(origin: Path, tmp_path: Path) -> None:
    nobody = {"HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1", "EMAIL": "",
              "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "user.useConfigOnly",
              "GIT_CONFIG_VALUE_0": "true"}  # fmt: skip
    names = {f"GIT_{who}_{what}" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    given = {key: value for key, value in environment().items() if key not in names} | nobody
    command = [sys.executable, "-m", "pipeline", "vary", "x", "preset=tiny"]
    done = subprocess.run(command, cwd=origin, env=given, capture_output=True, text=True)
    assert "git does not know who you are" in error_of(done)
    git = Path(shutil.which("git") or "").parent
    done = run(origin, *command, PATH=str(git) if not (git / "dvc").exists() else "")
    assert "dvc: not on PATH" in error_of(done)
