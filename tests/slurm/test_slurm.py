"""The tiny graph on a real Slurm, through failure, preemption and kills, to the same bytes."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.helpers.workspace import Workspace, clone, command_of, copy, processes, stages_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.slurm,
    pytest.mark.skipif(shutil.which("slurmctld") is None, reason="'make test-slurm' installs it"),
]

CLUSTER = Path(__file__).parent / "cluster.sh"
CANNOT_BE = 2
"""Its status where programs are missing, or root's rights, or another Slurm is there."""
LINK = Path("/etc/slurm/slurm.conf")
SNAKEMAKE = (
    "snakemake", "--workflow-profile", "profiles/slurm", "--latency-wait", "5",
    "--slurm-init-seconds-before-status-checks", "3", "--slurm-keep-successful-logs",
)  # fmt: skip
SUBMITTED = re.compile(r"Job \d+ has been submitted with SLURM jobid (\d+)")
SAVED = r"stopped, saved at step"
GOES_ON = r"going on from step"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("slurm")
    started = subprocess.run([CLUSTER, "start", folder], capture_output=True, text=True)
    if started.returncode == CANNOT_BE:
        pytest.skip(f"no Slurm: {started.stderr[-500:]}")
    assert started.returncode == 0, started.stderr[-5000:]
    try:
        yield
    finally:
        subprocess.run([CLUSTER, "stop", folder], check=True)


def on_a_gpu(workspace: Workspace, *overrides: str) -> Workspace:
    """Have its trainings ask for a GPU and little memory, which changes no result."""
    return composed(workspace, "resources.gpu=1", "resources.mem_mb=1500", *overrides)


def composed(workspace: Workspace, *overrides: str) -> Workspace:
    workspace.succeed("python", "-m", "pipeline", "compose", *overrides)
    return workspace


def slurm(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def jobs(*states: str) -> dict[str, str]:
    """Return the rule by number of the jobs in some states."""
    lines = slurm("squeue", "--noheader", f"--states={','.join(states)}", "--format=%i %k")
    return dict(line.split(maxsplit=1) for line in lines.splitlines())


def wait_for_no_jobs() -> None:
    deadline = time.monotonic() + 120
    while jobs("PENDING", "RUNNING", "COMPLETING"):
        assert time.monotonic() < deadline, slurm("squeue")
        time.sleep(0.2)


def told(workspace: Workspace, rule: str = "*") -> str:
    """Return what the jobs of a rule printed."""
    folder = workspace.folder / ".snakemake" / "slurm_logs"
    return "".join(path.read_text() for path in sorted(folder.glob(f"rule_{rule}/*.log")))


def results(workspace: Workspace) -> dict[str, str]:
    """Return the hashes of all but the report, which also tells commit and settings."""
    hashes = workspace.hashes()
    return {path: md5 for path, md5 in hashes.items()
            if path.startswith("reports/metrics/") or not path.startswith("reports/")}  # fmt: skip


def test_a_start_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    # in front of all that use the cluster: there can be one at a time
    broken = tmp_path / "bin" / "slurmd"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    folder = tmp_path / "slurm"
    path = f"{broken.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [CLUSTER, "start", folder], env=os.environ | {"PATH": path}, capture_output=True, text=True
    )
    if done.returncode == CANNOT_BE:
        pytest.skip(f"no Slurm: {done.stderr[-500:]}")
    assert done.returncode == 1
    assert not LINK.is_symlink()
    assert [
        command_of(process) for process in processes() if str(folder) in command_of(process)
    ] == []


def test_the_whole_graph_through_a_failure_and_a_lost_node(
    cluster: None, one_task: Path, finished: Workspace, tmp_path: Path
) -> None:
    workspace = on_a_gpu(clone(one_task, tmp_path / "work"))

    # a rule fails on its node: what is finished stays
    nowhere = ("env", "PIPELINE_CHECKPOINTS=/dev/null/nowhere")
    failed = workspace.run(*nowhere, *SNAKEMAKE, "commit__evaluate_degraded__denoise",
                           "commit__pretrain__denoise__0")  # fmt: skip
    assert failed.returncode != 0
    assert "Not a directory" in told(workspace)
    printed = failed.stdout + failed.stderr
    assert len(SUBMITTED.findall(printed)) >= 5, "job numbers are told"
    status = workspace.succeed("dvc", "status")
    assert "pretrain@denoise-0:" in status
    assert not any(f"{stage}:" in status for stage in ("synthesize@denoise", "prepare@skimage"))

    def lose_the_node(snakemake: int) -> bool:
        if workspace.saved_training() is None:
            return False
        node = slurm("sinfo", "--noheader", "--format=%n").strip()
        slurm("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
        wait_until(lambda: workspace.saved_training() is None, 60)
        # refused if its daemon has reported meanwhile, which brings it back, too
        subprocess.run(["scontrol", "update", f"nodename={node}", "state=resume"])
        return True

    done = workspace.meddle(lose_the_node, *SNAKEMAKE)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "rule synthesize__denoise:" not in done.stdout
    assert re.search(GOES_ON, told(workspace))
    assert results(workspace) == results(finished)
    assert "up to date" in workspace.succeed("dvc", "status")
    assert stages_run(workspace.succeed("dvc", "repro")) == set()
    assert "Nothing to be done" in workspace.succeed(*SNAKEMAKE, "-n")


# What happens to a training that has saved itself, and stands still meanwhile.


@dataclass(frozen=True)
class Scene:
    """The process of a training, and Slurm's number of its job."""

    training: int
    job: str


def warn_of_preemption(scene: Scene) -> None:
    """As where a partition has a GraceTime: it saves itself before Slurm ends it."""
    slurm("scancel", "--signal=TERM", scene.job)


def time_is_nearly_up(scene: Scene) -> None:
    """Have it warned: profiles/slurm asks for that 120 seconds before the end."""
    ends_in(100, scene)
    wait_until(lambda: not Path("/proc", str(scene.training)).exists(), 60)


def run_into_timeout(scene: Scene) -> None:
    ends_in(1, scene)
    wait_until(lambda: scene.job not in jobs("RUNNING"), 60)


def cancel(scene: Scene) -> None:
    slurm("scancel", scene.job)


def kill(scene: Scene) -> None:
    os.kill(scene.training, signal.SIGKILL)


def leave_alone(scene: Scene) -> None:
    pass


def ends_in(seconds: int, scene: Scene) -> None:
    slurm("scontrol", "update", f"jobid={scene.job}", f"EndTime=now+{seconds}")


def wait_until(ready: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.2)


FAULTS = {
    # by method, as their trainings run side by side: what happens, what their jobs then tell
    "vanilla": (warn_of_preemption, rf"{SAVED}(?s:.*){GOES_ON}"),
    "noise_space": (time_is_nearly_up, rf"{SAVED}(?s:.*){GOES_ON}"),
    "steps_low": (run_into_timeout, GOES_ON),
    "steps_high": (cancel, rf"{SAVED}(?s:.*){GOES_ON}"),
    "steps_all": (kill, GOES_ON),
}
METHODS = f"methods=[{','.join(FAULTS)}]"


def model(workspace: Workspace, method: str) -> str:
    return workspace.hashes()[f"data/models/denoise/{method}-0/model.safetensors"]


@pytest.fixture(scope="module")
def plain(finished: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The same trainings by DVC alone."""
    workspace = copy(finished, tmp_path_factory.mktemp("plain") / "work")
    composed(workspace, METHODS)
    workspace.succeed("dvc", "repro", "train")
    return workspace


def strike(
    workspace: Workspace, faults: dict[str, Callable[[Scene], None]]
) -> Callable[[int], bool]:
    """Let something happen to the training of each method, each once it has saved itself."""
    held: dict[str, Scene] = {}

    def act(snakemake: int) -> bool:
        running = {rule: job for job, rule in jobs("RUNNING").items()}
        for process in workspace.saved_trainings():
            method = Path("/proc", str(process), "cmdline").read_text().split("\0")[-4]
            if method in faults and method not in held:
                os.kill(process, signal.SIGSTOP)
                job = running[f"rule_train__denoise__{method}__0"]
                held[method] = Scene(process, job)
        if held.keys() != faults.keys():
            return False
        for method, scene in held.items():
            faults[method](scene)
            time.sleep(0.5)
            if Path("/proc", str(scene.training)).exists():
                os.kill(scene.training, signal.SIGCONT)
        return True

    return act


def targets(methods: Iterable[str]) -> list[str]:
    return [f"commit__train__denoise__{method}__0" for method in methods]


def test_trainings_warned_timed_out_cancelled_and_killed(
    cluster: None, pretrained: Workspace, plain: Workspace, tmp_path: Path
) -> None:
    workspace = on_a_gpu(copy(pretrained, tmp_path / "work"), METHODS)
    happens = {method: fault for method, (fault, _) in FAULTS.items()}
    done = workspace.meddle(strike(workspace, happens), *SNAKEMAKE, *targets(FAULTS))
    assert done.returncode == 0, done.stdout[-3000:]
    for method, (_, said) in FAULTS.items():
        assert re.search(said, told(workspace, f"train__denoise__{method}__0")), method
        assert model(workspace, method) == model(plain, method), method
    assert "train@" not in workspace.succeed("dvc", "status")


def test_a_preempted_training_on_two_gpus_of_a_node_is_started_again_by_slurm(
    cluster: None, pretrained: Workspace, tmp_path: Path
) -> None:
    plain = composed(copy(pretrained, tmp_path / "plain"), "train.devices=2", "resources.gpu=2",
                     "resources.mem_mb=3000")  # fmt: skip
    plain.succeed("dvc", "repro", "pretrain")
    workspace = copy(plain, tmp_path / "work")
    plain.succeed("dvc", "repro", "train@denoise-vanilla-0")
    asked = {}

    def preempt(snakemake: int) -> bool:
        training = workspace.saved_training()
        if training is None:
            return False
        os.kill(training, signal.SIGSTOP)  # until Slurm's SIGCONT, which comes with its SIGTERM
        job = next(job for job, rule in jobs("RUNNING").items() if "train__denoise" in rule)
        asked.update(told_by_slurm(job))
        slurm("sbatch", "--partition=urgent", "--gpus=7", "--output=/dev/null", "--wrap=true")
        wait_until(lambda: told_by_slurm(job)["Restarts"] == "1", 60)
        return True

    done = workspace.meddle(preempt, *SNAKEMAKE, *targets(["vanilla"]))
    assert done.returncode == 0, done.stdout[-3000:]
    assert (asked["NumNodes"], asked["TresPerJob"]) == ("1", "gres:gpu:2")
    assert len(SUBMITTED.findall(done.stdout)) == 1, "Snakemake has only waited"
    assert re.search(GOES_ON, told(workspace, "train__denoise__vanilla__0"))
    assert model(workspace, "vanilla") == model(plain, "vanilla")


def told_by_slurm(job: str) -> dict[str, str]:
    words = slurm("scontrol", "--oneliner", "show", "job", job).split()
    return dict(word.split("=", 1) for word in words if "=" in word)


def test_snakemake_killed_while_one_job_goes_on_and_one_is_cancelled(
    cluster: None, pretrained: Workspace, plain: Workspace, tmp_path: Path
) -> None:
    workspace = on_a_gpu(copy(pretrained, tmp_path / "work"))
    faults = {"vanilla": cancel, "noise_space": leave_alone}
    command = (*SNAKEMAKE, *targets(faults))

    def kill_snakemake(snakemake: int) -> bool:
        if not any(workspace.saved_trainings()):
            return False
        os.kill(snakemake, signal.SIGKILL)
        return strike_both(snakemake)

    def strike_both(snakemake: int) -> bool:
        act = strike(workspace, faults)
        wait_until(lambda: act(snakemake), 60)
        return True

    assert workspace.meddle(kill_snakemake, *command).returncode == -signal.SIGKILL
    wait_for_no_jobs()
    locked = workspace.run(*command)
    assert "--unlock" in locked.stdout + locked.stderr
    workspace.succeed("snakemake", "--unlock")
    output = workspace.succeed(*command)
    assert "rule train__denoise__noise_space__0:" not in output, "only to be committed"
    assert re.search(GOES_ON, told(workspace, "train__denoise__vanilla__0"))
    for method in faults:
        assert model(workspace, method) == model(plain, method)


def test_interrupted_snakemake_cancels_its_jobs(
    cluster: None, pretrained: Workspace, plain: Workspace, tmp_path: Path
) -> None:
    workspace = on_a_gpu(copy(pretrained, tmp_path / "work"))

    before = jobs("CANCELLED").keys()

    def interrupt(snakemake: int) -> bool:
        training = workspace.saved_training()
        if training is None:
            return False
        os.kill(training, signal.SIGSTOP)  # it must not end before it is cancelled
        os.kill(snakemake, signal.SIGINT)
        return True

    command = (*SNAKEMAKE, *targets(["noise_space"]))
    assert workspace.meddle(interrupt, *command).returncode != 0
    wait_for_no_jobs()
    cancelled = jobs("CANCELLED")
    rules = [cancelled[number] for number in cancelled.keys() - before]
    assert rules == ["rule_train__denoise__noise_space__0"]
    workspace.succeed(*command)
    assert model(workspace, "noise_space") == model(plain, "noise_space")


def test_what_no_node_has_is_refused(cluster: None, pretrained: Workspace, tmp_path: Path) -> None:
    workspace = on_a_gpu(copy(pretrained, tmp_path / "work"), "resources.mem_mb=99000000")
    done = workspace.run(*SNAKEMAKE, "--retries", "0", *targets(["noise_space"]))
    assert done.returncode != 0
    assert re.search("[Mm]emory|not available", done.stdout + done.stderr)
