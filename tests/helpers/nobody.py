"""Commands as an ordinary user: without a name or a home, or with a name alone; only root can."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

NUMBER = 54321
"""Of a user and a group that no machine is likely to have."""
ENTRY = f"x{NUMBER}:x:{NUMBER}:{NUMBER}::/home/x{NUMBER}:/bin/sh\n"
"""Line of /etc/passwd, in which the home is not there."""
# in a view of the disks of its own: a folder that root alone may enter, above this Python, becomes
# an empty one that holds the Python; and /etc/passwd gets a line
PREPARE = """
set -e
kept="$1" closed="$2" entry="$3" spare="$4"
shift 4
if test -n "$closed"; then
    mkdir -p "$spare/python"
    mount --bind "$kept" "$spare/python"
    mount -t tmpfs -o mode=755 tmpfs "$closed"
    mkdir -p "$kept"
    mount --move "$spare/python" "$kept"
fi
if test -n "$entry"; then
    { cat /etc/passwd; printf %s "$entry"; } > "$spare/passwd"
    mount --bind "$spare/passwd" /etc/passwd
fi
exec "$@" < /dev/null
"""


def as_nobody(
    folder: Path, spare: Path, *command: str, named: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run a command in a folder with PATH alone in its environment, and without a terminal.

    Args:
        folder: where; the user must be able to enter it.
        spare: an empty folder.
        command: its words.
        named: whether the user stands in /etc/passwd.
    """
    kept = Path(sys.base_prefix)
    closed = [place for place in kept.parents if not place.stat().st_mode & 0o001]
    prepared = [str(kept), str(closed[-1]) if closed else "", ENTRY if named else "", str(spare)]
    path = os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"])
    words = [
        "unshare", "--mount", "sh", "-c", PREPARE, "sh", *prepared, "setsid", "--wait", "setpriv",
        f"--reuid={NUMBER}", f"--regid={NUMBER}", "--clear-groups", "env", "-i", f"PATH={path}",
        *command,
    ]  # fmt: skip
    return subprocess.run(words, cwd=folder, capture_output=True, text=True)


def give(folder: Path) -> None:
    """Make a folder, with all below it, that user's."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, NUMBER, NUMBER, follow_symlinks=False)


def require_nobody(spare: Path) -> None:
    """Skip where commands cannot be run so."""
    if os.getuid() or any(shutil.which(tool) is None for tool in ("unshare", "setpriv", "setsid")):
        pytest.skip("needs root, unshare, setpriv and setsid")
    done = as_nobody(Path("/"), spare, "python", "-c", "import encodings")
    if done.returncode:
        pytest.skip(f"cannot be another user here: {done.stderr.strip()}")
