"""Where every artifact lies, as dvc.yaml declares it (a test compares the two)."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.runtime.errors import UserError

DATA = Path("data")
MODELS = DATA / "models"
REPORTS = Path("reports")
METRICS = REPORTS / "metrics"
TABLES = "tables"
"""Folder of the report's tables, below REPORTS."""
COSTS = Path("logs/costs")
"""Durations and memory: they differ from run to run, so they are no DVC outputs."""
TENSORBOARD = Path("logs/tensorboard")
TIMINGS = Path("logs/timings")
"""Seconds a step and waiting for data of every training, likewise."""

STATE_FILE = "state.safetensors"
MODEL_FILE = "model.safetensors"
LOG_FILE = "log.csv"
SNAPSHOTS_FILE = "snapshots.safetensors"
"""Restored crops at several steps of a training."""
TABLE_FILE = "per_image.csv"
IMAGES_FILE = "restored.h5"
FACTS_FILE = "facts.json"
PER_IMAGE_FILE = "per_image.csv"
"""All scores of all images, among the report's tables."""

DEGRADED = "degraded"
"""Stands in place of a method's name for the unrestored input."""

SIMULATED = "simulated real"
"""Ends the name of every data set whose photographs were degraded here, not by a camera."""

SYNTHETIC = "synthetic"
"""Ends the name of every data set whose test images are degraded as the synthetic domain is."""


def raw(source: str) -> Path:
    """Return the folder of a source's archives."""
    return DATA / "raw" / source


def prepared(source: str) -> Path:
    """Return the folder of a source's packed images: synthetic, real, truth and test.h5."""
    return DATA / "prepared" / source


def task_images(task: str) -> Path:
    """Return the folder of a task's packed images: synthetic, unpaired, real, truth and test.h5."""
    return DATA / "tasks" / task


def pretrained(task: str, seed: int) -> Path:
    """Return the folder of the training state that the methods of a seed start from."""
    return DATA / "pretrained" / task / str(seed)


@dataclass(frozen=True)
class Run:
    """One restorer on one task: a method and seed, or the degraded input itself."""

    task: str
    method: str
    seed: int | None = None

    @property
    def name(self) -> str:
        """The method, with the seed where there is one."""
        return self.method if self.seed is None else f"{self.method}-{self.seed}"

    @property
    def timings(self) -> Path:
        """Seconds a step of the training."""
        return TIMINGS / self.task / f"{self.name}.csv"

    @property
    def training(self) -> Path:
        """Folder of MODEL_FILE and LOG_FILE."""
        return MODELS / self.task / self.name

    @property
    def evaluation(self) -> Path:
        """Folder of TABLE_FILE, IMAGES_FILE and FACTS_FILE."""
        return DATA / "evaluations" / self.task / self.name

    @property
    def metrics(self) -> Path:
        """Summary of the evaluation, kept in git."""
        return METRICS / self.task / f"{self.name}.json"


def find_model(text: str) -> Path:
    """Return the model file that a user means: a file, its folder, or a run below data/models.

    Raises:
        UserError: there is none.
    """
    for path in (Path(text), Path(text) / MODEL_FILE, MODELS / text / MODEL_FILE):
        if path.is_file():
            return path
    runs = sorted(path.parent.relative_to(MODELS) for path in MODELS.glob(f"*/*/{MODEL_FILE}"))
    known = ", ".join(run.as_posix() for run in runs) or "none yet; 'dvc repro' trains some"
    raise UserError(
        f"{text}: no model; expected a {MODEL_FILE} or a run below {MODELS} (found: {known})"
    )
