"""HF_ENDPOINT and HF_TOKEN, as Hugging Face's own tools read them, against a real server."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.config.sources import Archive, Crops, FetchedSource, Version
from pipeline.runtime.errors import UserError
from pipeline.sources.fetch import FETCHED, download
from tests.helpers import miniatures as mini
from tests.helpers.file_server import Fault, FileServer, serving

FILE = "datasets/someone/set/resolve/main/train.zip"
OF_HUB = f"https://huggingface.co/{FILE}"
CONTENT = mini.as_zip({"a/1.txt": b"one"})


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A mirror that has the file, and nothing set in the environment."""
    for name in ("HF_ENDPOINT", "HF_TOKEN", "PIPELINE_ARCHIVES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIPELINE_DOWNLOADS", str(tmp_path / "downloads"))
    with serving() as running:
        running.add(FILE, CONTENT)
        yield running


def fetch(folder: Path, *urls: str) -> bytes:
    """Return the archive that is fetched from these addresses."""
    known = Version(urls, len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), None)
    archives = {"main": Archive("x.zip", None, (known,))}
    settings = FetchedSource("sidd", FETCHED, "MIT", "http://page", archives, (), None, None, None,
                             None, None, None, False, None, Crops(None, None, None))  # fmt: skip
    download(settings, folder / "raw")
    return (folder / "raw" / "x.zip").read_bytes()


@pytest.mark.parametrize("ending", ["", "/"])
def test_addresses_of_the_hub_are_asked_of_the_mirror(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.url + ending)
    assert fetch(tmp_path, OF_HUB) == CONTENT
    assert server.authorizations == [(f"/{FILE}", None)]


def test_the_token_goes_to_the_mirror_and_not_where_it_leads(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    other_host = server.url.replace("127.0.0.1", "localhost")
    server.add("of-the-storage.zip", CONTENT)
    server.fail(FILE, Fault("moved", location=f"{other_host}/of-the-storage.zip"))
    assert fetch(tmp_path, OF_HUB) == CONTENT
    assert server.authorizations == [
        (f"/{FILE}", "Bearer hf_secret"),
        ("/of-the-storage.zip", None),
    ]


def test_another_host_is_neither_mirrored_nor_given_the_token(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    assert fetch(tmp_path, f"{server.url}/{FILE}") == CONTENT
    assert server.authorizations == [(f"/{FILE}", None)]


def test_a_refusal_of_the_hub_says_what_to_do(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    server.always[f"/{FILE}"] = Fault("status", 401)
    with pytest.raises(UserError, match=r"HTTP 401 .* set HF_TOKEN to a token of your account"):
        fetch(tmp_path, OF_HUB)


def test_what_is_no_address_is_refused_before_anything_is_asked(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "hf-mirror")
    with pytest.raises(UserError, match="HF_ENDPOINT: found 'hf-mirror', expected an address"):
        fetch(tmp_path, OF_HUB)
    assert not server.requests
