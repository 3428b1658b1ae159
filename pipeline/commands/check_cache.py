"""Remove damaged objects from DVC's cache, so that their content is fetched or computed again.

DVC reads an object's content when it writes it and believes its name from then on. After a failing
disk, or a program that wrote through a link into the cache, have all of them read once:

It ends with what to do then. Status 1 says that some were damaged.
"""

import hashlib
import re
from pathlib import Path

from pipeline.commands import parser
from pipeline.workflow.project import repository

OBJECT = re.compile(r"[0-9a-f]{32}(\.dir)?")
"""Name of an object: the MD5 of its content, or that of a folder's list."""

REMEDY = "git clean -fdqX data; dvc checkout || dvc pull; dvc repro"
"""Deletes what DVC makes below data, and nothing that git keeps."""


def check_cache(folder: Path) -> list[str]:
    """Delete the objects below a cache folder whose content is not what they are named after.

    Returns:
        the names of those deleted.
    """
    damaged = []
    for path in sorted(folder.glob("files/md5/??/*")):
        name = path.parent.name + path.name
        if not OBJECT.fullmatch(name) or path.is_symlink() or not path.is_file():
            continue  # what DVC writes just now, or another's
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
        if found != name.removesuffix(".dir"):
            path.unlink()
            damaged.append(name)
    return damaged


def main(words: list[str]) -> int:
    """Check the cache of the project here, and return 1 if an object was damaged."""
    parser("check_cache", __doc__).parse_args(words)
    with repository(_wait_for_lock=True) as repo, repo.lock:
        damaged = check_cache(Path(repo.cache.local_cache_dir))
    for name in damaged:
        print(f"damaged, deleted: {name}")
    if damaged:
        print(f"Now: {REMEDY}")
    return 1 if damaged else 0
