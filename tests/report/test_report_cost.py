"""Cost and provenance of the numbers in the report."""

import dataclasses
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo

from pipeline.config.methods import (
    Neighbor2NeighborSettings,
)
from pipeline.config.params import Params
from pipeline.evaluation.metrics import PROTOCOLS as KNOWN_PROTOCOLS
from pipeline.report.cost import method_costs, stage_names
from pipeline.report.page import write_cost as write_cost_page
from pipeline.report.page import write_report
from pipeline.report.provenance import PROTOCOLS, code_state
from pipeline.runtime.files import write_text
from pipeline.runtime.paths import Run
from tests.report import test_report
from tests.report.test_report import (
    OUT,
    ROOT,
    TASK,
    enter,
    markdown,
    summary,
    write_cost,
    write_timings,
)

composed = test_report.composed
params = test_report.params


# Cost and provenance


def test_costs_by_hand(params: Params) -> None:
    write_timings(Run(TASK, "vanilla", 0), (0.9, 0.8), (0.2, 0.0), (0.2, 0.1))
    write_timings(Run(TASK, "noise_space", 0), (0.5, 0.1), (0.6, 0.2))
    write_cost("train@denoise-vanilla-0", 20.0, 1000)
    write_cost("train@denoise-noise_space-0", 50.0, 1250)
    write_report(params, OUT)
    record = json.loads((OUT / "cost.json").read_text())
    assert (record["total_wall_s"], record["peak_memory_mib"]) == (70.0, 1250)
    adapted = record["methods"][1]
    assert (adapted["wall_ratio"], adapted["memory_ratio"]) == (2.5, 1.25)
    # the median of a start and two steps, the mean of their waiting
    plain = record["methods"][0]
    assert (plain["step_s"], plain["waiting_share"], plain["step_ratio"]) == (0.2, 0.3, 1.0)
    assert (adapted["step_s"], adapted["waiting_share"], adapted["step_ratio"]) == (
        0.55,
        0.15,
        2.75,
    )
    unknown = dict.fromkeys(("wall_s", "peak_memory_mib", "peak_gpu_memory_mib"))
    assert {"stage": "pretrain@denoise-0", **unknown} in record["stages"]
    text = (OUT / "cost.md").read_text()
    assert (
        "| denoise, noise_space | 4 | 0.5500 | 2.75 x | 15.0 % | 50.0 | 2.50 x | 1,250 | 1.25 x |"
    ) in text
    assert "| pretrain@denoise-0 | - | - |" in text and "GPU" not in text.split("Seconds a step")[1]


def test_cost_counts_the_updates_of_the_stage(params: Params) -> None:
    """8 of which 4 are shared; whole times compare only where the numbers are equal."""
    afresh = Neighbor2NeighborSettings("neighbor2neighbor", "scratch", weight=2.0)
    wider = dataclasses.replace(params, methods={**params.methods, "ne2ne": afresh})
    found = {cost.method: cost.updates for cost in method_costs(wider)}
    assert found == {"vanilla": 4, "noise_space": 4, "ne2ne": 8}
    write_cost_page(wider, OUT)
    text = (OUT / "cost.md").read_text()
    assert "| Task, method | Updates | Seconds a step |" in text
    assert "| denoise, ne2ne | 8 |" in text and "makes more of the updates" in text


def test_memory_of_a_gpu_is_shown_where_one_was_used(params: Params) -> None:
    write_cost("train@denoise-vanilla-0", 20.0, 1000, 3000)
    write_cost("train@denoise-noise_space-0", 50.0, 1250, 7000)
    write_cost("synthesize@denoise", 1.0, 300)
    write_report(params, OUT)
    text = (OUT / "cost.md").read_text()
    assert "| Memory against vanilla | GPU memory (MiB) | Parameters thrown away |" in text
    assert "| 50.0 | 2.50 x | 1,250 | 1.25 x | 7,000 | - |" in text
    assert "| synthesize@denoise | 1.0 | 300 | - |" in text
    assert re.search(r"\| total of 3 of \d+ stages \| 71.0 \| 1,250 \| 7,000 \|", text)


def test_cost_over_seeds_needs_every_record(params: Params) -> None:
    two = dataclasses.replace(params, seeds=(0, 1))
    write_cost("train@denoise-vanilla-0", 20.0, 1000)
    assert method_costs(two)[0].wall_s is None
    write_cost("train@denoise-vanilla-1", 30.0, 900)
    found = method_costs(two)[0]
    assert (found.wall_s, found.peak_memory_mib, found.wall_ratio) == (25.0, 1000, 1.0)


@pytest.mark.parametrize("second", [None, "\n"], ids=["missing", "empty"])
def test_timings_over_seeds_need_every_record(params: Params, second: str | None) -> None:
    two = dataclasses.replace(params, seeds=(0, 1))
    write_timings(Run(TASK, "vanilla", 0), (0.2, 0.1), (0.4, 0.3))
    if second is not None:
        write_text(Run(TASK, "vanilla", 1).timings, second)
    found = method_costs(two)[0]
    assert (found.step_s, found.step_ratio, found.waiting_share) == (None, None, None)
    write_cost_page(two, OUT)
    assert "| denoise, vanilla | 4 | - | - | - |" in (OUT / "cost.md").read_text()
    write_timings(Run(TASK, "vanilla", 1), (1.0, 0.5))
    found = method_costs(two)[0]
    assert (found.step_s, found.step_ratio, found.waiting_share) == (0.4, 1.0, 0.3)


def test_stage_names_are_those_of_the_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    stages = {stage.addressing for stage in Repo(str(ROOT)).index.stages} - {"report"}
    monkeypatch.chdir(ROOT)
    assert set(stage_names()) == stages


def test_every_protocol_is_explained() -> None:
    assert set(PROTOCOLS) == set(KNOWN_PROTOCOLS)


def test_commit_is_that_of_code_and_settings(tmp_path: Path, monkeypatch: Any) -> None:
    enter(tmp_path, monkeypatch)
    assert code_state().commit is None
    write_text(Path("pipeline/code.py"), "1")
    write_text(Path("params.yaml"), "1")
    git("init", "--quiet")
    commit("code")
    code = git("rev-parse", "HEAD")
    write_text(Path("README.md"), "results and documents change no report")
    commit("documents")
    assert git("rev-parse", "HEAD") != code
    found = code_state()
    assert (found.commit, found.modified, found.params_modified) == (code, False, False)
    write_text(Path("params.yaml"), "2")
    assert (code_state().modified, code_state().params_modified) == (False, True)
    commit("settings")
    for path in (Path("stages/new.py"), Path("requirements.lock")):
        write_text(path, "2")
        assert code_state().modified and not code_state().params_modified
        commit(path.name)
        assert code_state().commit == git("rev-parse", "HEAD")
        assert not code_state().modified


def test_rebuilding_is_told(params: Params) -> None:
    assert "This was not run in a git repository" in markdown(params)
    write_text(Path("dvc.yaml"), "stages: {}")
    git("init", "--quiet")
    commit("all")
    head = git("rev-parse", "HEAD")
    text = markdown(params)
    assert f"git checkout {head} && dvc repro" in text
    assert "modified after that commit" not in text
    assert f"git checkout {head} &amp;&amp; dvc repro" in (OUT / "report.html").read_text()
    write_text(Path("params.yaml"), "a: committed")
    commit("settings")
    head = git("rev-parse", "HEAD")
    write_text(Path("params.yaml"), "a: not committed")
    start = f"git stash && git checkout {head} && cp reports/tables/params.yaml params.yaml"
    assert f"{start} && dvc repro\n" in markdown(params)
    assert (OUT / "tables" / "params.yaml").read_text() == "a: not committed"
    commands = (OUT / "tables" / "commands.csv").read_text()
    assert f"{start} && dvc repro evaluate@denoise-vanilla-0\n" in commands
    commit("settings as well")
    assert "git stash" not in markdown(params)
    write_text(Path("dvc.yaml"), "stages: {}  # changed")
    assert summary(params)[0]["code_modified"] is True
    assert (
        "Code or requirements.lock was modified after that commit"
        in (OUT / "report.md").read_text()
    )


def git(*arguments: str) -> str:
    person = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    done = subprocess.run(["git", *person, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def commit(message: str) -> None:
    git("add", "--all")
    git("commit", "--quiet", "--message", message)
