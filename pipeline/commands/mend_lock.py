"""Put right what a kill leaves of DVC's lock files, and DVC itself does not.

Nothing is lost: without a dvc.lock that it can read, DVC finds finished work in its cache.
'make reproduce' and Snakemake run this first.
"""

import sys

from pipeline.commands import parser
from pipeline.workflow.mend_lock import LOCK, mend


def main(words: list[str]) -> int:
    """Mend both lock files; waits for a DVC at work."""
    parser("mend_lock", __doc__).parse_args(words)
    if mend():
        print(f"{LOCK} was damaged and is set aside: DVC finds the results in its cache",
              file=sys.stderr)  # fmt: skip
    return 0
