"""What ``dvc exp run`` checks before it composes params.yaml anew, by way of Hydra's plugins.

DVC imports this module, and then composes and writes whatever comes out, right or wrong. So the
same is composed aside first: a mistake, or another preset than the one that params.yaml holds, is
refused while nothing has changed, and what becomes of edits by hand is printed.
"""

import os
import subprocess
import sys
from argparse import ArgumentParser
from pathlib import Path

from dvc.config import Config
from dvc.exceptions import DvcException
from dvc.utils.cli_parse import to_path_overrides
from dvc.utils.hydra import get_hydra_sweeps
from hydra.errors import HydraException

sys.path.insert(0, str(Path(__file__).parents[3]))
try:
    from pipeline.config.compose import require_same_preset
    from pipeline.config.like import register
    from pipeline.runtime.errors import UserError
finally:
    del sys.path[0]

ROOT = Path(__file__).parents[3]
MOST_COMBINATIONS = 4
"""Of a sweep: looking at a combination takes seconds."""

SITE_CACHE = ".cache/dvc"
"""As .dvc/config says it."""
SITE_CACHE_VARIABLE = "DVC_SITE_CACHE_DIR"
"""DVC's own, which wins over its configuration."""


def check(words: list[str]) -> None:
    """Refuse what the command line of a ``dvc exp run`` would wrongly compose.

    Raises:
        DvcException: with one line that says what was found and what is expected.
    """
    if not {"run", "exp"} <= set(words) and not {"run", "experiments"} <= set(words):
        return
    if {"--temp", "--queue"} & set(words) and not _can_write_settings():
        raise DvcException(
            f"--temp and --queue: DVC cannot write the settings of a copy where the path ({ROOT})"
            " or .dvc/config.local has letters beyond A-Z; move the project, run it in this folder,"
            " or use: python -m pipeline vary"
        )
    given = ArgumentParser(add_help=False, allow_abbrev=False)
    given.add_argument("-S", "--set-param", action="append", default=[], dest="overrides")
    found, _ = given.parse_known_args(words)
    given_overrides = to_path_overrides(found.overrides).get("params.yaml", [])
    try:
        require_same_preset(given_overrides, ROOT / "params.yaml")
    except UserError as error:
        raise DvcException(f"{error}: -S preset=...") from None
    for overrides in _combinations(given_overrides):
        for line in _changes(overrides):
            print(f"params.yaml, composed anew: {line}", file=sys.stderr)
    _name_site_cache(for_workers="--queue" in words)


def _name_site_cache(for_workers: bool) -> None:
    """Name ``core.site_cache_dir`` by its full path, as DVC may work in copies of the project.

    It makes that folder before it enters a copy, and opens its files afterwards: the relative
    path of .dvc/config would mean two folders. Workers of a queue are other processes, but DVC
    hands config.local to their copies. A project that was moved has its former path there.
    """
    config = Config.from_cwd()
    place = config["core"].get("site_cache_dir", "")
    if not place.endswith(SITE_CACHE) or SITE_CACHE_VARIABLE in os.environ:  # somebody's own
        return
    os.environ[SITE_CACHE_VARIABLE] = here = str(ROOT / SITE_CACHE)
    if not _can_write_settings():
        return
    if place not in (SITE_CACHE, here) or (for_workers and place != here):
        with config.edit("local") as local:
            local["core"]["site_cache_dir"] = here


def _can_write_settings() -> bool:
    """Return whether DVC can write config.local: it writes ASCII alone, and else empties it."""
    local = ROOT / ".dvc" / "config.local"
    return str(ROOT).isascii() and (not local.is_file() or local.read_bytes().isascii())


def _combinations(overrides: list[str]) -> list[list[str]]:
    try:
        sweeps = get_hydra_sweeps({"": overrides})
    except HydraException:  # said in our words in a moment
        return [overrides]
    return [combination[""] for combination in sweeps][:MOST_COMBINATIONS]


def _changes(overrides: list[str]) -> list[str]:
    command = [sys.executable, "-m", "pipeline", "compose", "--diff", *overrides]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONSAFEPATH"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise DvcException(done.stderr.strip().removeprefix("error: "))
    return done.stdout.splitlines()


check(sys.argv[1:])
register()
