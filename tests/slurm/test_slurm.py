"""The tiny graph on a real Slurm, through failure, preemption and kills, to the same bytes."""

import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.workspace import Workspace, clone, make_origin, stages_run

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(shutil.which("slurmctld") is None, reason="'make test-slurm' installs it"),
]

CLUSTER = Path(__file__).parent / "cluster.sh"
SETTINGS = ("preset=tiny", "tasks=[denoise]", "train.pretrain_steps=20", "train.steps=30",
            "resources.gpu=1", "resources.mem_mb=1500")  # fmt: skip
SNAKEMAKE = (
    "snakemake", "--workflow-profile", "profiles/slurm", "--latency-wait", "5",
    "--slurm-init-seconds-before-status-checks", "5", "--slurm-keep-successful-logs",
)  # fmt: skip
SUBMITTED = re.compile(r"Job \d+ has been submitted with SLURM jobid (\d+)")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("slurm")
    started = subprocess.run([CLUSTER, "start", folder], capture_output=True, text=True)
    if started.returncode:
        pytest.skip(f"no Slurm: {started.stderr[-500:]}")
    yield folder
    subprocess.run([CLUSTER, "stop", folder], check=True)


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_origin(tmp_path_factory.mktemp("origin"))
    workspace = Workspace(folder)
    workspace.succeed("python", "-m", "pipeline.compose", *SETTINGS)
    graph = folder / "dvc.yaml"
    graph.write_text(graph.read_text().replace("retries: 3", "retries: 1"))
    workspace.commit("one task, trained on a GPU, retried once")
    return folder


def jobs(*states: str) -> dict[str, str]:
    """Return the rule by number of the jobs in some states."""
    command = ["squeue", "--noheader", f"--states={','.join(states)}", "--format=%i %k"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return dict(line.split(maxsplit=1) for line in lines)


def a_saved_training(workspace: Workspace) -> bool:
    return any((workspace.folder / ".checkpoints").glob("*/state.safetensors"))


def preempt(workspace: Workspace) -> Callable[[str], bool]:
    """Warn, once, the training that has saved itself as Slurm does before it takes a node."""
    warned = 0

    def ready(output: str) -> bool:
        nonlocal warned
        if not warned and a_saved_training(workspace):
            numbers = [number for number, name in jobs("RUNNING").items() if "train" in name]
            for number in numbers:
                subprocess.run(["scancel", "--signal=TERM", number], check=True)
            warned += len(numbers)
        # killed later, while the trainings that follow it are under way
        return "done/pretrain@denoise-0." in output and a_saved_training(workspace)

    return ready


def test_failed_preempted_and_killed_it_ends_with_the_same_bytes(
    cluster: Path, origin: Path
) -> None:
    plain = clone(origin, origin.parent / "plain")
    plain.succeed("dvc", "repro")

    # a rule fails on its node: what is finished stays
    workspace = clone(origin, origin.parent / "cluster")
    nowhere = ("env", "PIPELINE_CHECKPOINTS=/dev/null/nowhere")
    failed = workspace.run(*nowhere, *SNAKEMAKE)
    assert failed.returncode != 0
    assert len(SUBMITTED.findall(failed.stdout + failed.stderr)) >= 5, "job numbers are told"
    status = workspace.succeed("dvc", "status")
    assert "pretrain@denoise-0:" in status
    assert not any(f"{stage}:" in status for stage in ("synthesize@denoise", "prepare@skimage"))

    # a training is preempted, saves itself and goes on in a new job; then Snakemake is killed
    output = workspace.kill_when(preempt(workspace), *SNAKEMAKE, with_children=False)
    logs = "".join(
        path.read_text()
        for path in sorted((workspace.folder / ".snakemake" / "slurm_logs").rglob("*.log"))
    )
    assert "stopped, saved at step" in logs + output
    assert "going on from step" in logs + output

    # its jobs are cancelled, and the same command goes on where they were
    for number in jobs("PENDING", "RUNNING"):
        subprocess.run(["scancel", number], check=True)
    while jobs("PENDING", "RUNNING", "COMPLETING"):
        time.sleep(0.2)
    workspace.succeed("snakemake", "--unlock")
    workspace.succeed(*SNAKEMAKE)
    assert workspace.hashes() == plain.hashes()
    assert "up to date" in workspace.succeed("dvc", "status")
    assert stages_run(workspace.succeed("dvc", "repro")) == set()
    assert "Nothing to be done" in workspace.succeed(*SNAKEMAKE, "-n")
