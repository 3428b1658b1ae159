"""The table of docs/cluster.md that says what a preset costs, against what the commands count."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from benchmarks import graph_size
from pipeline.config.compose import CONF, compose

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cluster.md").read_text()
PRESETS = sorted(path.stem for path in (CONF / "preset").glob("*.yaml"))
ROWS = {
    name: [cell.strip() for cell in cells.split("|")]
    for name, cells in re.findall(r"^\| `(\w+)` \| (\d.*) \|$", PAGE, re.MULTILINE)
}


def test_every_preset_has_a_row_and_the_readme_leads_there() -> None:
    assert sorted(ROWS) == PRESETS
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert "[docs/cluster.md](docs/cluster.md): which tool owns what, what a preset costs" in readme


@pytest.mark.parametrize("preset", PRESETS)
def test_its_jobs_are_the_stages_of_the_graph(preset: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    compose([f"preset={preset}"], tmp_path / "params.yaml")
    subprocess.run(["dvc", "init", "--quiet", "--no-scm"], cwd=tmp_path, check=True)
    jobs, trainings = ROWS[preset][:2]
    assert graph_size.count_jobs(tmp_path).total() == int(jobs)
    assert graph_size.count_trainings(tmp_path) == int(trainings.split()[0])


@pytest.mark.parametrize("preset", ["one_gpu", "paper"])
def test_gpu_hours_follow_from_what_is_written_below_the_table(preset: str) -> None:
    found = re.search(
        r"([\d.]+) TFLOP an update of noise_space and ([\d.]+) of vanilla,\s+([\d,]+)\s+updates,"
        r" at (\d+) TFLOP/s",
        PAGE,
    )
    assert found
    noise_space, vanilla, updates, rate = (float(word.replace(",", "")) for word in found.groups())
    tasks, seeds = 3, 3
    hours = (noise_space + vanilla) * updates * tasks * seeds / rate / 3600
    written = [int(number) for number in re.findall(r"\d+", ROWS[preset][2])]
    expected = [hours] if preset == "one_gpu" else [hours, hours / 8]
    assert written == [pytest.approx(number, rel=0.01) for number in expected]
