"""The tables that are read first: all results in one, the ablation, what the paper published."""

import numpy as np

from pipeline.config.methods import ReleasedSettings
from pipeline.config.params import Params
from pipeline.evaluation.metrics import one_protocol
from pipeline.report.results import DataSet, TaskResults
from pipeline.report.tables.published import ABLATION, Published, ablation, of_task
from pipeline.report.tables.scores import (
    MEAN_AND_STD,
    NONE,
    PSNR_DECIMALS,
    SSIM_DECIMALS,
    Cell,
    Table,
    baseline,
    method_label,
    score_cells,
)
from pipeline.runtime.paths import DEGRADED

THEIRS = "published by the paper's authors: other data, other hardware, other training"


def headline_table(params: Params, results: list[TaskResults]) -> Table | None:
    """Return every score with its interval and, apart from them, what the paper published.

    None if no data set has clean images.
    """
    rows = [
        row
        for task in results
        for data_set in task.data_sets
        if data_set.ids
        for row in _headline_rows(params, data_set, beside=data_set is task.data_sets[0])
    ]
    if not rows:
        return None
    spread = f", {MEAN_AND_STD} over {len(params.seeds)} seeds" if len(params.seeds) > 1 else ""
    return Table(
        caption=f"The columns named 'Paper' were {THEIRS}. They stand here for orientation and"
        " cannot be compared with ours.",
        columns=(
            "Task, data set, protocol",
            "Restorer",
            f"PSNR (dB){spread}",
            "95 % interval of PSNR",
            f"SSIM{spread}",
            "95 % interval of SSIM",
            "LPIPS",
            "Paper: PSNR (dB)",
            "Paper: SSIM",
            "Paper: LPIPS",
            "Paper: data",
        ),
        rows=tuple(rows),
        words=2,
    )


def data_sets_table(params: Params, task: TaskResults) -> Table | None:
    """Return the PSNR on every data set of a task, one column each.

    None if fewer than two have clean images.
    """
    scored = [data_set for data_set in task.data_sets if data_set.ids]
    if len(scored) < 2:
        return None
    protocol = one_protocol({data_set.protocol for data_set in scored}, f"task {task.name}")
    restorers = [DEGRADED, *params.methods]
    cells = [score_cells(params, data_set, restorers)["psnr"] for data_set in scored]
    unseen = [data_set.name for data_set in scored if not data_set.seen]
    told = f". Of a camera or source never seen in training: {'; '.join(unseen)}" if unseen else ""
    return Table(
        caption=f"PSNR in dB on every data set, protocol {protocol}{told}",
        columns=("Restorer", *(data_set.name for data_set in scored)),
        rows=tuple(
            (Cell(method_label(params, name, *scored)), *(found[name][0] for found in cells))
            for name in restorers
        ),
    )


def ablation_table(params: Params, data_set: DataSet) -> Table | None:
    """Return what each part of the method adds, in the paper's order beside the paper's numbers.

    None unless the methods hold more of the ablation than the baseline and the whole method.
    """
    rows = [row for row in ablation() if row.ours in params.methods]
    base = baseline(params)
    if len(rows) < 3 or base is None:
        return None
    names = [str(row.ours) for row in rows]
    cells = score_cells(params, data_set, names)
    base_psnr = float(np.mean(data_set.psnr[base]))
    theirs = {row.ours: row for row in ablation()}["vanilla"].psnr
    made = []
    for row, name in zip(rows, names, strict=True):
        gain = float(np.mean(data_set.psnr[name])) - base_psnr
        (psnr, _), (ssim, _) = cells["psnr"][name], cells["ssim"][name]
        made.append((
            Cell(name), Cell(row.method), psnr, Cell(_signed(gain)), ssim,
            Cell(f"{row.psnr:.{PSNR_DECIMALS}f}", theirs=True),
            Cell(_signed(row.psnr - theirs), theirs=True),
            Cell(f"{row.ssim:.{SSIM_DECIMALS}f}", theirs=True),
        ))  # fmt: skip
    return Table(
        caption=f"Ablation, {data_set.name}, beside the paper's Table {ABLATION} on SIDD. The last"
        f" three columns were {THEIRS}.",
        columns=(
            "Restorer", "In the paper", "PSNR (dB)", f"Against {base}", "SSIM",
            "Paper: PSNR (dB)", "Paper: against vanilla", "Paper: SSIM",
        ),
        rows=tuple(made),
        words=2,
    )  # fmt: skip


def published_table(task: str) -> Table | None:
    """Return the paper's main results for the problem of a task, None if it has none."""
    rows = of_task(task)
    if not rows:
        return None
    return Table(
        caption=f"Results of the paper, {rows[0].data_set}: {THEIRS}. Protocol: {rows[0].protocol}",
        columns=("Method of the paper", "Here", "Its table", "Parameters (M)", "GMACs",
                 "PSNR (dB)", "SSIM", "LPIPS"),
        rows=tuple(
            (Cell(row.method), Cell(row.ours or NONE), Cell(str(row.table), theirs=True),
             _theirs(row.parameters_m), _theirs(row.giga_macs), *_published_cells(row),
             _lpips(row))
            for row in rows
        ),
        words=2,
    )  # fmt: skip


def _headline_rows(params: Params, data_set: DataSet, beside: bool) -> list[tuple[Cell, ...]]:
    """Return the rows of one data set, with the paper's numbers ``beside`` them or not."""
    restorers = [DEGRADED, *params.methods]
    cells = score_cells(params, data_set, restorers)
    theirs = {row.ours: row for row in of_task(data_set.task)} if beside else {}
    rows: list[tuple[Cell, ...]] = []
    for name in restorers:
        method = params.methods.get(name)
        found = theirs.get(method.of_method if isinstance(method, ReleasedSettings) else name)
        paper = (
            (
                *_published_cells(found),
                _lpips(found),
                Cell(found.where, theirs=True),
            )
            if found
            else (Cell(NONE, theirs=True),) * 4
        )
        label = f"{data_set.task}: {data_set.name}, {data_set.protocol}"
        rows.append((
            Cell(label), Cell(method_label(params, name, data_set)),
            *cells["psnr"][name], *cells["ssim"][name], cells["lpips"][name][0], *paper,
        ))  # fmt: skip
    return rows


def _published_cells(row: Published) -> tuple[Cell, Cell]:
    return (
        Cell(f"{row.psnr:.{PSNR_DECIMALS}f}", theirs=True),
        Cell(f"{row.ssim:.{SSIM_DECIMALS}f}", theirs=True),
    )


def _lpips(row: Published) -> Cell:
    return _theirs(row.lpips, SSIM_DECIMALS)


def _theirs(value: float | None, decimals: int = 2) -> Cell:
    return Cell(NONE if value is None else f"{value:.{decimals}f}", theirs=True)


def _signed(value: float) -> str:
    return f"{value:+.{PSNR_DECIMALS}f}"
