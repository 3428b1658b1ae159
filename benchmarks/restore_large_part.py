"""Part of ``benchmarks.restore_large``: the restore command, then this process's peak memory."""

import sys
from pathlib import Path

from pipeline.commands.restore import main

if __name__ == "__main__":
    status = main(sys.argv[1:])
    (peak,) = (
        line.split()[1]
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    )
    print(peak)
    sys.exit(status)
