"""Remove damaged objects from DVC's cache, so that their content is fetched or computed again.

DVC reads an object's content when it writes it and believes its name from then on. After a failing
disk, or a program that wrote through a link into the cache, have all of them read once:

It ends with what to do then. Status 1 says that some were damaged.
"""

import hashlib
from pathlib import Path

from pipeline.commands import parser


def check_cache(folder: Path) -> list[str]:
    """Delete the objects below a cache folder whose content is not what they are named after.

    Returns:
        the names of those deleted.
    """
    damaged = []
    for path in sorted(folder.glob("files/md5/??/*")):
        name = path.parent.name + path.name
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "md5").hexdigest()
        if found != name.removesuffix(".dir"):
            path.unlink()
            damaged.append(name)
    return damaged


def main(words: list[str]) -> int:
    """Check the cache of the project here, and return 1 if an object was damaged."""
    parser("check_cache", __doc__).parse_args(words)
    from dvc.repo import Repo

    with Repo(_wait_for_lock=True).lock:
        damaged = check_cache(Path(Repo().cache.local_cache_dir))
    for name in damaged:
        print(f"damaged, deleted: {name}")
    if damaged:
        print("Now 'rm -r data', 'dvc checkout' or 'dvc pull', then 'dvc repro' or 'snakemake'.")
    return 1 if damaged else 0
