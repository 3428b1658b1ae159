"""Remove damaged objects from DVC's cache, so that their content is fetched or computed again.

DVC reads an object's content when it writes it and believes its name from then on. After a failing
disk, or a program that wrote through a link into the cache, have all of them read once:

Usage: python -m pipeline.check_cache      (it ends with what to do then)
"""

import hashlib
import sys
from pathlib import Path


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


def _main() -> None:
    from dvc.repo import Repo

    with Repo(_wait_for_lock=True).lock:
        damaged = check_cache(Path(Repo().cache.local_cache_dir))
    for name in damaged:
        print(f"damaged, deleted: {name}")
    if damaged:
        print("Now 'rm -r data', 'dvc checkout' or 'dvc pull', then 'dvc repro' or 'snakemake'.")
    sys.exit(1 if damaged else 0)


if __name__ == "__main__":
    _main()
