"""Is every training of a configuration possible, and what would it take?

Composes the configuration without touching params.yaml and runs three updates of every kind of
training on stand-in images, through the training loop itself. So a wrong value shows in a minute,
not after a day.

* measuring.py    three updates, in a process of their own: time, memory, sizes of networks
* wording.py      the tables and sentences that tell it
"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.compose import compose
from pipeline.config.methods import ReleasedSettings, TrainedMethod, VanillaSettings
from pipeline.config.params import Params
from pipeline.config.read import read_params
from pipeline.dry_run.disk import summary
from pipeline.dry_run.measuring import count, gpus, measure, write_stand_ins
from pipeline.dry_run.wording import Row, card_advice, conclusions, overview, table

if TYPE_CHECKING:
    from rich.console import Console

SCRATCH = VanillaSettings(kind="vanilla", start="scratch")


def dry_run(overrides: list[str]) -> None:
    """Measure every training of the configuration and print what it would take.

    Raises:
        UserError: the configuration is wrong, a released weight file is missing or of another
            network, or a training fails.
    """
    from rich.console import Console

    console = Console(soft_wrap=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        compose(overrides, folder / "params.yaml")
        params = read_params(folder / "params.yaml")
        _check_released(params)
        kinds = trainings(params)
        console.print(overview(params, len(kinds)))
        write_stand_ins(folder / "images", params.train.patch)
        tables = [
            [_row(params, tasks, *training, folder, console) for training in kinds]
            for tasks in params.restorers().values()
        ]
        rows = [row for part in tables for row in part]
        advised = _count_the_largest(params, rows, folder) if rows else []
    if kinds:  # else there are released weights alone
        for part in tables:
            console.print(table(params, part))
        for line in [*conclusions(params, rows), *advised]:
            console.print(line)
    for line in summary(params):
        console.print(line)


def _count_the_largest(params: Params, rows: list[Row], folder: Path) -> list[str]:
    """Return what its largest training would take on GPUs, if it wants some and here is none."""
    if gpus() or not params.resources.gpu:
        return []
    largest = max(rows, key=lambda row: row.cost.memory).label
    (method,) = (method for label, method, _ in trainings(params) if label == largest)
    return card_advice(params, count(params, next(iter(params.tasks)), method, folder))


def _row(
    params: Params,
    tasks: list[str],
    label: str,
    method: TrainedMethod,
    updates: int,
    folder: Path,
    console: "Console",
) -> Row:
    """Measure a training of tasks of one restorer: they differ in images and rates, not in cost."""
    console.print(f"measuring {label} ...")
    networks, cost = measure(params, tasks[0], method, folder)
    return Row(label, len(tasks), updates, networks, cost)


def trainings(params: Params) -> list[tuple[str, TrainedMethod, int]]:
    """Return name, method and number of updates of every training of a task and seed."""
    found: list[tuple[str, TrainedMethod, int]] = []
    if params.train.pretrain_steps:
        found.append(("(pretraining)", SCRATCH, params.train.pretrain_steps))
    for label, method in params.methods.items():
        if not isinstance(method, ReleasedSettings):
            shared = params.train.pretrain_steps if method.start == "pretrained" else 0
            found.append((label, method, params.train.steps - shared))
    return found


def _check_released(params: Params) -> None:
    from pipeline.training.released import load_released

    for method in params.methods.values():
        if isinstance(method, ReleasedSettings):
            for name in params.tasks:
                load_released(method.weights[name], params.restorer_of(name))
