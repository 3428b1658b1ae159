"""The commands of docs/sharing.md with a folder and with a real S3 server on loopback."""

import importlib.util
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import requests

from tests.helpers.workspace import ROOT, Workspace, clone, copy, recipe, stages_run
from tests.whole_graph.test_experiments import OF_NOISE_SPACE

pytestmark = pytest.mark.graph

PAGE = "sharing.md"
MODEL = Path("data/models/denoise/noise_space-0/model.safetensors")


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An S3 server with an empty bucket; return its address."""
    for module in ("dvc_s3", "moto", "flask_cors", "boto3"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"no {module}: pip install '.[dev,s3]'")
    import boto3

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while True:
            try:
                requests.get(address, timeout=5)
                break
            except requests.ConnectionError:
                assert time.monotonic() < deadline and server.poll() is None
                time.sleep(0.1)
        boto3.client("s3", endpoint_url=address).create_bucket(Bucket="bucket")
        yield address
    finally:
        server.kill()
        server.wait()


def assert_nothing_to_do(workspace: Workspace) -> None:
    assert "up to date" in workspace.succeed("dvc", "status")
    assert stages_run(workspace.succeed(*recipe(PAGE, "dvc repro   "))) == set()
    assert "Nothing to be done" in workspace.succeed("snakemake", "-n")


@pytest.fixture(params=["folder", "s3"])
def shared(request: pytest.FixtureRequest, finished: Workspace, tmp_path: Path) -> Workspace:
    """A finished workspace that was pushed."""
    workspace = copy(finished, tmp_path / "shared")
    if request.param == "folder":
        place = {"/mnt/results": str(tmp_path / "remote")}
        workspace.succeed(*recipe(PAGE, "dvc remote add --default results /mnt", place))
    else:
        address = {"http://127.0.0.1:5000": request.getfixturevalue("s3")}
        workspace.succeed(*recipe(PAGE, "dvc remote add --default results s3"))
        workspace.succeed(*recipe(PAGE, "dvc remote modify results endpointurl", address))
    workspace.succeed(*recipe(PAGE, "dvc push"))
    workspace.succeed(*recipe(PAGE, "git add .dvc/config"))
    return workspace


def test_a_fresh_clone_has_nothing_to_do_after_a_pull(shared: Workspace, tmp_path: Path) -> None:
    fresh = clone(shared.folder, tmp_path / "fresh")
    fresh.succeed(*recipe(PAGE, "dvc pull\n"))
    assert_nothing_to_do(fresh)

    # lost: noticed by DVC; damaged: noticed by a look at all; both fetched again
    name = fresh.hashes()[str(MODEL)]
    cached = fresh.folder / ".dvc" / "cache" / "files" / "md5" / name[:2] / name[2:]
    whole, mode = cached.read_bytes(), cached.stat().st_mode
    cached.unlink()
    (fresh.folder / MODEL).unlink()
    assert str(MODEL) in fresh.succeed("dvc", "status")
    fresh.succeed(*recipe(PAGE, "dvc pull\n"))
    assert (fresh.folder / MODEL).read_bytes() == whole

    cached.chmod(0o644)
    cached.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    cached.chmod(mode)
    checked = fresh.run(*recipe(PAGE, "python -m pipeline check_cache"))
    assert checked.returncode == 1 and f"damaged, deleted: {name}" in checked.stdout
    fresh.succeed(*recipe(PAGE, "git clean -fdqX data && dvc pull"))
    assert (fresh.folder / MODEL).read_bytes() == whole
    assert fresh.run("python", "-m", "pipeline", "check_cache").returncode == 0
    assert_nothing_to_do(fresh)


def on_remote(workspace: Workspace, name: str) -> tuple[Callable[[], bytes], Callable[..., object]]:
    """Return how to read and to write, or delete, the object of a hash on the remote."""
    config = partial(workspace.succeed, "dvc", "config")
    place, key = config("remote.results.url").strip(), f"files/md5/{name[:2]}/{name[2:]}"
    if not place.startswith("s3://"):
        path = workspace.folder / ".dvc" / place / key

        def put(content: bytes | None) -> None:
            mode = path.stat().st_mode  # DVC believes what cannot be written to
            path.unlink()
            if content is not None:
                path.write_bytes(content)
                path.chmod(mode)

        return path.read_bytes, put
    import boto3

    client = boto3.client("s3", endpoint_url=config("remote.results.endpointurl").strip())
    bucket, _, folder = place.removeprefix("s3://").partition("/")
    which = {"Bucket": bucket, "Key": f"{folder}/{key}"}

    def write(content: bytes | None) -> None:
        if content is None:
            client.delete_object(**which)
        else:
            client.put_object(**which, Body=content)

    return lambda: client.get_object(**which)["Body"].read(), write


def test_what_is_damaged_on_the_remote_is_refused_and_made_again(
    shared: Workspace, tmp_path: Path
) -> None:
    whole, name = (shared.folder / MODEL).read_bytes(), shared.hashes()[str(MODEL)]
    read, write = on_remote(shared, name)
    damaged = whole[:-1] + bytes([whole[-1] ^ 1])
    write(damaged)
    believing = clone(shared.folder, tmp_path / "believing")
    believing.succeed(*recipe(PAGE, "dvc pull\n"))
    assert (believing.folder / MODEL).read_bytes() == damaged, "else the page need not warn"

    fresh = clone(shared.folder, tmp_path / "fresh")
    fresh.succeed(*recipe(PAGE, "dvc remote modify results verify"))
    refused = fresh.run(*recipe(PAGE, "dvc pull\n"))
    assert refused.returncode != 0 and str(MODEL) in refused.stderr
    assert not (fresh.folder / MODEL).exists()
    made = stages_run(fresh.succeed(*recipe(PAGE, "dvc repro   ")))
    assert made == {"train@denoise-noise_space-0"}
    assert (fresh.folder / MODEL).read_bytes() == whole

    fresh.succeed(*recipe(PAGE, "dvc push"))
    assert read() == damaged, "there is one of that name"
    write(None)
    fresh.succeed(*recipe(PAGE, "dvc push"))
    assert read() == whole


def test_only_what_a_change_needs_is_fetched_and_its_experiment_shared(
    shared: Workspace, tmp_path: Path
) -> None:
    fresh = clone(shared.folder, tmp_path / "fresh")
    fresh.succeed(*recipe(PAGE, "python -m pipeline compose"))
    fresh.succeed(*recipe(PAGE, "dvc pull synthesize"))
    assert stages_run(fresh.succeed(*recipe(PAGE, "dvc repro --pull"))) == OF_NOISE_SPACE
    assert not (fresh.folder / "data" / "raw").exists()
    assert not (fresh.folder / "data" / "prepared").exists()

    fresh.succeed("dvc", "pull", "download", "prepare", "pretrain")  # an experiment is complete
    fresh.succeed("dvc", "exp", "save", "--name", "wider")
    fresh.succeed(*recipe("experiments.md", "dvc exp push"))
    other = clone(shared.folder, tmp_path / "other")
    other.succeed(*recipe("experiments.md", "dvc exp pull"))
    other.succeed("dvc", "exp", "apply", "wider")
    assert other.hashes() == fresh.hashes()
    assert (other.folder / MODEL).read_bytes() == (fresh.folder / MODEL).read_bytes()


def test_the_cache_on_another_disk_and_what_it_keeps(finished: Workspace, tmp_path: Path) -> None:
    workspace = copy(finished, tmp_path / "work")
    record = workspace.folder / "data" / "checksums" / "mine.txt"
    record.parent.mkdir()
    record.write_text("of an archive")
    (tmp_path / "large").mkdir()
    large = {"/mnt/large": str(tmp_path / "large")}
    workspace.succeed(*recipe(PAGE, "mv .dvc/cache", large))
    workspace.succeed(*recipe(PAGE, "dvc cache dir", large))
    workspace.succeed(*recipe(PAGE, "dvc config --local cache.type"))
    workspace.succeed(*recipe(PAGE, "git clean -fdqX data && dvc checkout"))
    assert record.read_text() == "of an archive", "git keeps it"
    model = workspace.folder / MODEL
    assert model.stat().st_nlink > 1 or model.is_symlink()

    objects = set((tmp_path / "large").rglob("*"))
    lost = tmp_path / "large/cache/files/md5/00/00000000000000000000000000000000"
    lost.parent.mkdir(exist_ok=True)
    lost.write_text("of no commit")
    unasked = {"dvc gc": "dvc gc --force"}
    workspace.succeed(*recipe(PAGE, "dvc gc --workspace   ", unasked))
    workspace.succeed(*recipe(PAGE, "dvc gc --workspace --all-commits", unasked))
    assert not lost.exists()
    name = workspace.hashes()[str(MODEL)]
    assert tmp_path / "large/cache/files/md5" / name[:2] / name[2:] in objects
    assert "up to date" in workspace.succeed("dvc", "status")


def test_every_command_of_the_page_is_run_here() -> None:
    started = re.findall(r'recipe\(PAGE, "([^"]+)"', Path(__file__).read_text())
    page = (ROOT / "docs" / PAGE).read_text()
    commands = [line.strip() for line in page.splitlines() if line.startswith("    ")]
    assert len(commands) >= 8
    unused = [
        c for c in commands if not any(c.startswith(start.removesuffix("\\n")) for start in started)
    ]
    assert [command.split("  ")[0] for command in unused] == ["pip install '.[s3]'"]
