"""The cache is read once: damaged objects are deleted, and nothing else."""

import hashlib
from pathlib import Path

from pipeline.commands.check_cache import check_cache


def add(folder: Path, name: str, content: bytes) -> Path:
    path = folder / "files" / "md5" / name[:2] / name[2:]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_only_damaged_objects_are_deleted(tmp_path: Path) -> None:
    name = hashlib.md5(b"whole").hexdigest()
    whole = add(tmp_path, name, b"whole")
    listed = add(tmp_path, f"{hashlib.md5(b'[]').hexdigest()}.dir", b"[]")
    damaged = add(tmp_path, hashlib.md5(b"other").hexdigest(), b"Other")
    others = [
        add(tmp_path, f"{name}.tmp", b"being written"),
        add(tmp_path, f"{name[:2]}q1w2e3.tmp", b"being written"),
        add(tmp_path, "notes.txt", b"mine"),
        add(tmp_path, f"{name}.dir.bak", b"mine"),
        add(tmp_path, "A" * 32, b"mine"),
    ]
    link = tmp_path / "files" / "md5" / "ab" / ("c" * 30)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(others[2])
    assert check_cache(tmp_path) == [hashlib.md5(b"other").hexdigest()]
    assert not damaged.exists() and link.is_symlink()
    assert all(path.exists() for path in (whole, listed, *others))
