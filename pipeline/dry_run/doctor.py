"""What is wrong with a machine or a clone, found before a long run and not during it."""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import packages_distributions
from pathlib import Path

import psutil

from pipeline.config.params import Params
from pipeline.dry_run.disk import GB, needed_bytes
from pipeline.runtime.checkpoints import CHECKPOINTS_VARIABLE, checkpoints_folder
from pipeline.runtime.errors import UserError, in_one_line
from pipeline.runtime.locks import lock
from pipeline.workflow.mend_lock import claims
from pipeline.workflow.one_snakemake import require_nobody_runs
from pipeline.workflow.project import (
    GRAPH_VARIABLE,
    repository,
    require_identity,
    require_plain_folders,
    require_project,
)

DEMO_BYTES = 1e9
"""Data and cache of the built-in demo."""
MOVED = "/.cache/dvc/"
"""DVC's database in a project: a queue notes its full path in .dvc/config.local."""
NETWORK_FILE_SYSTEMS = ("nfs", "cifs", "smb", "lustre", "beegfs", "gpfs", "fuse")
ODD_LETTERS = {
    ":": "PATH cannot hold the environment's programs",
    '"': "scripts of the environment do not start",
    "$": "scripts of the environment do not start",
    "`": "scripts of the environment do not start",
    "{": "DVC takes it for a name of its own",
    "#": "DVC cuts addresses there",
}
PYTHONS = ((3, 11), (3, 14))
"""The first and the last that pyproject.toml allows."""
TEMPORARY_BYTES = 1e8


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, whether it is well, and what was found or is to be done."""

    what: str
    well: bool
    text: str

    def __str__(self) -> str:
        """Return the line."""
        return f"{'ok ' if self.well else 'fix'}  {self.what:12} {self.text}"


def examine(params: Params) -> Iterator[Finding]:
    """Yield a line about everything that a run of these settings needs."""
    checks: dict[str, Callable[[Params], str]] = {
        "python": _python,
        "folder": _folder,
        "clone": lambda params: _passes(require_project, "git works in it"),
        "git identity": lambda params: _passes(require_identity, "experiments can be kept"),
        "outputs": lambda params: _passes(require_plain_folders, "no links above them"),
        "disk": _disk,
        "temporary": _temporary,
        "cache": _cache,
        "locks": _locks,
        "checkpoints": _checkpoints,
        "archives": _archives,
        "threads": _threads,
        "memory": _memory,
        "GPUs": _gpus,
        "Slurm": _slurm,
    }
    for what, check in checks.items():
        try:
            yield Finding(what, True, check(params))
        except Exception as error:
            line = in_one_line(error)
            if line is None:
                raise
            yield Finding(what, False, line)


def _passes(check: Callable[[], None], text: str) -> str:
    check()
    return text


def _python(params: Params) -> str:
    if not PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        low, high = (".".join(map(str, version)) for version in PYTHONS)
        raise UserError(f"found Python {sys.version.split()[0]}, expected {low} to {high}:"
                        " make setup")  # fmt: skip
    found = shutil.which("python")
    same = found is not None and Path(found).parent.samefile(Path(sys.executable).parent)
    if not same or shutil.which("dvc") is None:
        raise UserError(
            f"stages start {found or 'no python'}, expected {sys.executable}: source"
            " .venv/bin/activate"
        )
    ours = packages_distributions()
    for folder in map(Path, filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))):
        hidden = sorted(path.stem for path in folder.glob("*") if path.stem in ours)
        if hidden and folder.resolve() != Path.cwd():
            raise UserError(
                f"PYTHONPATH: {folder} has another {', '.join(hidden[:3])}, which stages would take"
                " for the environment's: unset PYTHONPATH"
            )
    return f"{sys.version.split()[0]}, {sys.executable}"


def _folder(params: Params) -> str:
    here = str(Path.cwd())
    for letter, why in ODD_LETTERS.items():
        if letter in here:
            raise UserError(f"{here}: has {letter} in its name ({why}); move the project")
    return here


def _disk(params: Params) -> str:
    needed, free = max(DEMO_BYTES, needed_bytes(params)[1]), shutil.disk_usage(".").free
    text = f"{free / GB:.0f} GB free, {needed / GB:.0f} GB needed for preset {params.preset}"
    if free < needed:
        raise UserError(f"{text}; 'python -m pipeline disk' says for what, docs/sharing.md#disks"
                        " how to use another disk")  # fmt: skip
    return text


def _temporary(params: Params) -> str:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if free < TEMPORARY_BYTES:
        raise UserError(f"{folder}: {free / 1e6:.0f} MB free; free some, or set TMPDIR")
    return f"{folder}: {free / GB:.0f} GB free"


def _cache(params: Params) -> str:
    with repository() as repo:
        cache = Path(repo.cache.local_cache_dir)
        links = repo.config["cache"].get("type") or ["reflink", "copy"]
        database = Path(repo.site_cache_dir)
    if not database.is_relative_to(Path.cwd()) and not os.access(database, os.W_OK):
        raise UserError(f"{database}: DVC's database cannot be written to; export"
                        " DVC_SITE_CACHE_DIR=FOLDER")  # fmt: skip
    if MOVED in f"{database}/" and not database.is_relative_to(Path.cwd()):
        raise UserError(f"{database}: lies where this project was before it was moved; dvc config"
                        " --local --unset core.site_cache_dir")  # fmt: skip
    cache.mkdir(parents=True, exist_ok=True)
    kind = _file_system(cache)
    with tempfile.NamedTemporaryFile(dir=cache) as file:
        lock(file.fileno(), Path(file.name))
    text = f"{cache} ({kind}), by {', '.join(links)}"
    if cache.stat().st_dev != Path().stat().st_dev and "symlink" not in links:
        raise UserError(f"{text}: on another disk than the data, so all is stored twice; dvc config"
                        " --local cache.type reflink,symlink,copy")  # fmt: skip
    if kind.startswith(NETWORK_FILE_SYSTEMS):
        text += "; a network file system: its locks must hold between nodes (docs/cluster.md)"
    return text


def _file_system(path: Path) -> str:
    inside = [part for part in psutil.disk_partitions(all=True)
              if path.absolute().is_relative_to(part.mountpoint)]  # fmt: skip
    return max(inside, key=lambda part: len(part.mountpoint)).fstype if inside else "unknown"


def _locks(params: Params) -> str:
    if GRAPH_VARIABLE not in os.environ:  # else this Snakemake asks
        require_nobody_runs()
    held = claims()
    if held:
        raise UserError(f"held by {', '.join(held)}; wait for it, or if none is at work on any"
                        " machine: python -m pipeline mend_lock")  # fmt: skip
    left = sorted(Path(".snakemake/locks").glob("*"))
    if left:
        raise UserError("a Snakemake was killed, or runs: snakemake --unlock if none does")
    return "none held"


def _checkpoints(params: Params) -> str:
    folder = checkpoints_folder()
    given = os.environ.get(CHECKPOINTS_VARIABLE)
    if given and not Path(given).is_dir():
        raise UserError(f"{CHECKPOINTS_VARIABLE}: found {given}, expected a folder")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass
    return str(folder)


def _archives(params: Params) -> str:
    given = os.environ.get("PIPELINE_ARCHIVES")
    if given and not Path(given).is_dir():
        raise UserError(f"PIPELINE_ARCHIVES: found {given}, expected a folder")
    return given or "fetched where they are wanted"


def _threads(params: Params) -> str:
    here, wanted = len(os.sched_getaffinity(0)), params.train.threads
    if wanted > here:
        raise UserError(f"train.threads: {wanted}, but {here} processors: every update would be"
                        " slower; other threads give other last digits")  # fmt: skip
    return f"{here} processors, {wanted} a training"


def _memory(params: Params) -> str:
    here = psutil.virtual_memory().total / 2**20
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY:
        here = min(here, limit / 2**20)
    if here < params.resources.mem_mb:
        raise UserError(f"{here:,.0f} MiB, but resources.mem_mb is {params.resources.mem_mb}; lower"
                        " train.batch, or raise train.accumulate")  # fmt: skip
    return f"{here:,.0f} MiB, {params.resources.mem_mb} a training asked for"


def _gpus(params: Params) -> str:
    import torch

    found, wanted = torch.cuda.device_count(), params.resources.gpu
    if found < wanted:
        raise UserError(f"{found} here, {wanted} wanted; on this machine:"
                        f" train.devices={found or 1} resources.gpu={found}")  # fmt: skip
    names = [torch.cuda.get_device_properties(index) for index in range(found)]
    shown = ", ".join(f"{gpu.name} {gpu.total_memory / 2**30:.0f} GiB" for gpu in names)
    return f"{shown or 'none'}, {wanted} wanted; 'python -m pipeline dry_run' measures their memory"


def _slurm(params: Params) -> str:
    if shutil.which("sbatch") is None:
        return "not here"
    asked = subprocess.run(["sinfo", "--noheader"], capture_output=True, text=True)
    if asked.returncode:
        raise UserError(f"'sinfo' failed: {asked.stderr.strip()}; is slurmctld up?")
    return f"{len(asked.stdout.splitlines())} lines of 'sinfo'"
