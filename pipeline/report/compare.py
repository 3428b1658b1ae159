"""Two states of the project side by side: settings that differ, and their scores."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.config.compose import flat
from pipeline.config.params import PARAMS_FILE
from pipeline.evaluation.metrics import one_protocol
from pipeline.randomness import numpy_generator
from pipeline.report.results import Values
from pipeline.report.statistics import PairedDifference, mean_and_std, paired_difference
from pipeline.report.tables.differences import (
    Tested,
    corrected,
    corrected_text,
    difference_bounds,
    p_value_text,
)
from pipeline.report.tables.scores import (
    NONE,
    PSNR_DECIMALS,
    SSIM_DECIMALS,
    Cell,
    Table,
    restorer_label,
    spread_cell,
    text_table,
)
from pipeline.report.tables.writing import to_csv, to_latex, to_markdown
from pipeline.runtime.csv_files import parse_csv
from pipeline.runtime.errors import UserError
from pipeline.runtime.git import ask_git
from pipeline.runtime.paths import DEGRADED, PER_IMAGE_FILE, REPORTS, TABLES

WORKSPACE = "workspace"
FORMS = (".md", ".csv", ".tex")
"""Markdown has the settings too; CSV and LaTeX the scores alone."""
BOOTSTRAP_SAMPLES = 10_000
PER_IMAGE = REPORTS / TABLES / PER_IMAGE_FILE


@dataclass(frozen=True)
class Scores:
    """Scores of one restorer on one data set, (seeds, images); ``lpips`` None if not measured."""

    protocol: str
    scenes: tuple[str, ...]
    ids: tuple[str, ...]
    seeds: tuple[str, ...]
    psnr: Values
    ssim: Values
    lpips: Values | None


Key = tuple[str, str, str]
"""Task, data set, restorer."""


@dataclass(frozen=True)
class State:
    """One side of the comparison: its name as given, its settings, and all its scores."""

    name: str
    settings: dict[str, Any]
    scores: dict[Key, Scores]


def read_state(name: str) -> State:
    """Return settings and scores of a revision, an experiment, or the workspace.

    Raises:
        UserError: there is no such revision, or its table of images is neither in its tree nor in
            DVC's cache.
    """
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.scm import RevError, resolve_rev
    from dvc_data.hashfile.tree import TreeError
    from dvc_data.index.index import DataIndexError, StorageError
    from dvc_objects.errors import ObjectDBError, ObjectFormatError
    from omegaconf import OmegaConf

    try:
        revision = None if name == WORKSPACE else resolve_rev(Repo().scm, name)
        # of a revision the root is git's, which may be above the project
        below = ask_git("rev-parse", "--show-prefix").stdout.strip() if revision else ""
        files = DVCFileSystem(rev=revision, subrepos=True)
        texts = [files.read_text(f"{below}{path.as_posix()}", encoding="utf-8")
                 for path in (PARAMS_FILE, PER_IMAGE)]  # fmt: skip
    except RevError:
        raise UserError(
            f"{name}: no such revision or experiment; 'dvc exp list' and 'git log' name them"
        ) from None
    except (OSError, DvcException, DataIndexError, StorageError, TreeError, ObjectDBError,
            ObjectFormatError, UnicodeDecodeError) as error:  # fmt: skip
        raise UserError(
            f"{name}: cannot read {PARAMS_FILE} and {PER_IMAGE} ({error}); if it was made"
            " elsewhere, or DVC's cache was emptied, 'dvc pull' or 'dvc exp pull' fetches them"
        ) from None
    settings = flat(OmegaConf.to_container(OmegaConf.create(texts[0])))
    return State(name, settings, read_scores(texts[1]))


def read_scores(text: str) -> dict[Key, Scores]:
    """Return the scores in a table of images, see per_image.py.

    Raises:
        UserError: a restorer was scored under two protocols.
    """
    rows: dict[Key, list[dict[str, str]]] = {}
    for row in parse_csv(text):
        rows.setdefault((row["task"], row["data_set"], row["method"]), []).append(row)
    return {key: _scores(key, found) for key, found in rows.items()}


def settings_table(a: State, b: State) -> Table:
    """Return the settings that differ."""
    names = dict.fromkeys((*a.settings, *b.settings))
    rows = [
        (name, _shown(a.settings, name), _shown(b.settings, name))
        for name in names
        if _shown(a.settings, name) != _shown(b.settings, name)
    ]
    caption = "Settings that differ" if rows else "No setting differs"
    return text_table(caption, ("Setting", a.name, b.name), rows)


def scores_table(a: State, b: State) -> Table:
    """Return the scores of both, and how much higher those of B are on the same images.

    Raises:
        UserError: a data set was scored under two protocols.
    """
    keys = list(dict.fromkeys((*a.scores, *b.scores)))
    paired = {key: _paired(a.scores[key], b.scores[key], key) for key in keys
              if key in a.scores and key in b.scores}  # fmt: skip
    # the input is no method: where a degradation was changed, its difference is no result
    differences = {key: found for key, found in paired.items() if found and key[2] != DEGRADED}
    tests = corrected(differences)
    rows = []
    for key in keys:
        first, second = a.scores.get(key), b.scores.get(key)
        one_protocol({side.protocol for side in (first, second) if side}, f"{key[0]}, {key[1]}")
        side = first or second
        found = paired.get(key)
        bounds, p_value, difference, ssim = Cell(NONE), NONE, NONE, NONE
        if found and first and second:
            difference = f"{found.mean:+.{PSNR_DECIMALS}f}"
            bounds, p_value = difference_bounds(found), _p_value(tests, key)
            ssim = f"{second.ssim.mean() - first.ssim.mean():+.{SSIM_DECIMALS}f}"
        elif first and second:
            bounds = Cell("other images: not compared")
        label = f"{key[0]}: {key[1]}, {side.protocol if side else NONE}"
        rows.append((
            Cell(label), Cell(restorer_label(key[2])),
            _mean(first, "psnr"), _mean(second, "psnr"), Cell(difference), bounds, Cell(p_value),
            _mean(first, "ssim"), _mean(second, "ssim"), Cell(ssim),
            _mean(first, "lpips"), _mean(second, "lpips"),
        ))  # fmt: skip
    return Table(
        caption=f"A is {a.name}, B is {b.name}. A score is the mean over the images, with several"
        " seeds ± its std over them. Differences are of the same images, averaged over the seeds"
        f" image by image{_seeds(a, b)}; the interval is over whole scenes, p of Wilcoxon over"
        f" scenes, corrected for their number, {len(differences)} without the input (Holm).",
        columns=(
            "Task, data set, protocol", "Restorer", "PSNR of A (dB)", "PSNR of B (dB)",
            "B minus A (dB)", "95 % interval", "p, corrected", "SSIM of A", "SSIM of B",
            "SSIM, B minus A", "LPIPS of A", "LPIPS of B",
        ),
        rows=tuple(rows),
        words=2,
    )  # fmt: skip


def comparison(first: str, second: str, form: str) -> str:
    """Return two states side by side: settings and scores as Markdown, or the scores alone.

    Args:
        first: a git revision, an experiment, or 'workspace'.
        second: likewise.
        form: one of FORMS.

    Raises:
        UserError: see ``read_state`` and ``scores_table``.
    """
    a, b = read_state(first), read_state(second)
    scores = scores_table(a, b)
    if form == ".csv":
        return to_csv(scores)
    if form == ".tex":
        return to_latex(scores, "comparison")
    settings = settings_table(a, b)
    head = to_markdown(settings) if settings.rows else f"{settings.caption}.\n"
    return f"{head}\n{to_markdown(scores)}"


def _scores(key: Key, rows: list[dict[str, str]]) -> Scores:
    protocol = one_protocol({row["protocol"] for row in rows}, ", ".join(key))
    seeds = tuple(dict.fromkeys(row["seed"] for row in rows))
    first = [row for row in rows if row["seed"] == seeds[0]]
    psnr, ssim, lpips = (
        # what was not measured, or not known to an older table, becomes NaN
        np.array([[float(row.get(name) or "nan") for row in rows if row["seed"] == seed]
                  for seed in seeds])
        for name in ("psnr", "ssim", "lpips")
    )  # fmt: skip
    return Scores(
        protocol=protocol,
        scenes=tuple(row["scene"] for row in first),
        ids=tuple(row["id"] for row in first),
        seeds=seeds,
        psnr=psnr,
        ssim=ssim,
        lpips=None if np.isnan(lpips).any() else lpips,
    )


def _paired(a: Scores, b: Scores, key: Key) -> PairedDifference | None:
    one_protocol({a.protocol, b.protocol}, f"{key[0]}, {key[1]}")
    if (a.ids, a.scenes) != (b.ids, b.scenes):
        return None
    generator = numpy_generator("compare", *key[:2])
    means = b.psnr.mean(axis=0), a.psnr.mean(axis=0)
    return paired_difference(*means, BOOTSTRAP_SAMPLES, generator, groups=a.scenes)


def _p_value(tests: dict[Key, Tested], key: Key) -> str:
    """Return the corrected p-value, or why there is none."""
    if key not in tests:
        return NONE
    tested = tests[key]
    return p_value_text(tested.difference) if tested.corrected is None else corrected_text(tested)


def _seeds(a: State, b: State) -> str:
    def listed(state: State) -> str:
        seeds = dict.fromkeys(seed for found in state.scores.values() for seed in found.seeds)
        return ", ".join(seed for seed in seeds if seed)

    return f" (A: {listed(a)}; B: {listed(b)})"


def _mean(scores: Scores | None, name: str) -> Cell:
    values = getattr(scores, name) if scores else None
    if values is None:
        return Cell(NONE)
    decimals = PSNR_DECIMALS if name == "psnr" else SSIM_DECIMALS
    return spread_cell(*mean_and_std(values.mean(axis=1)), decimals)


def _shown(settings: dict[str, Any], name: str) -> str:
    return str(settings[name]) if name in settings else "(not there)"
