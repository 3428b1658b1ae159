"""``python -m pipeline.dry_run``."""

import sys

from pipeline.dry_run import dry_run
from pipeline.errors import mistakes_told

if __name__ == "__main__":
    with mistakes_told():
        dry_run(sys.argv[1:])
