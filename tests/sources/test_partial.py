"""Half-fetched files are forgotten with all that belongs to them, and nothing else."""

from pathlib import Path

import pytest

from pipeline.config.sources import Archive
from pipeline.runtime.errors import UserError
from pipeline.sources.fetch.partial import forget
from pipeline.sources.fetch.places import lying

OURS = (
    "x.zip.partial", "x.zip.partial.json", "x.zip.partial.drive-0123abcd",
    "x.zip.partial.drive-0123abcd.json", "x.zip.partial.drive-0123abcdq1_w2e3r.part",
)  # fmt: skip
OTHERS = ("x.zip", "x.zip.partial-notes.txt", "x.zip.partial.bak", "y.zip.partial", "x.partial")


def test_files_of_others_stay(tmp_path: Path) -> None:
    for name in (*OURS, *OTHERS):
        (tmp_path / name).touch()
    forget(tmp_path / "x.zip.partial")
    assert {path.name for path in tmp_path.iterdir()} == set(OTHERS)


def test_a_misspelt_folder_of_archives_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIPELINE_ARCHIVES", str(tmp_path / "archvies"))
    with pytest.raises(UserError, match=r"PIPELINE_ARCHIVES: found .*archvies, expected a folder"):
        list(lying("sidd", Archive("x.zip", None, ())))
