"""Set a damaged dvc.lock aside, so that DVC finds the results in its cache and goes on.

DVC rewrites dvc.lock in place after every stage. A kill at that moment, between two stages, leaves
half a file, which DVC then refuses to read. Nothing else is lost: without the file DVC looks every
stage up in its run cache and runs none again that was finished.

Usage: python -m pipeline.mend_lock      ('make reproduce' calls it first)
"""

import sys
from pathlib import Path

LOCK = Path("dvc.lock")


def mend(lock: Path = LOCK) -> bool:
    """Rename a lock file that DVC cannot read to ``<name>.damaged``; return whether it was."""
    from dvc.exceptions import DvcException
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from dvc.utils.serialize import load_yaml
    from voluptuous import Invalid

    if not lock.is_file():
        return False
    try:
        COMPILED_LOCKFILE_SCHEMA(load_yaml(str(lock)))
    except (DvcException, Invalid, UnicodeDecodeError):
        lock.replace(lock.with_name(f"{lock.name}.damaged"))
        return True
    return False


if __name__ == "__main__" and mend():
    print(
        f"{LOCK} was damaged and is set aside: DVC finds the results in its cache", file=sys.stderr
    )
