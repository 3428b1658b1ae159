"""The dry run: what would take a day too long to find out shows in a minute."""

import re
import subprocess
from pathlib import Path

import pytest
import torch

from pipeline.config.compose import compose
from pipeline.config.read import read_params
from pipeline.config.restorers import UNetSettings
from pipeline.dry_run import dry_run, measuring, trainings
from pipeline.dry_run.measuring import Cost, Networks, _train, extrapolate, networks_of
from pipeline.dry_run.wording import Row, conclusions
from pipeline.models.build import build_restorer
from pipeline.runtime.files import sha256_of
from pipeline.training.job import Job
from tests.helpers import preloaded

ROOT = Path(__file__).parents[2]
QUICK = ("preset=tiny", "tasks=[denoise]")


def run(*overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [preloaded.python(), "-m", "pipeline", "dry_run", *overrides],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip


def row(output: str, label: str) -> list[str]:
    (line,) = (line for line in output.splitlines() if line.startswith(f"│ {label} "))
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_every_training_is_measured_and_nothing_is_written() -> None:
    before = (ROOT / "params.yaml").read_bytes()
    done = run("preset=tiny")
    assert done.returncode == 0, done.stderr
    assert "3 tasks x 1 seeds x 3 = 9 trainings" in done.stdout
    assert "32,875 parameters" in done.stdout
    for label in ("(pretraining)", "vanilla", "noise_space"):
        _, extra, memory, _, updates, _, _ = row(done.stdout, label)
        assert updates == "4" and memory.endswith("GiB")
        assert (extra == "0") == (label != "noise_space")
    assert (ROOT / "params.yaml").read_bytes() == before


PAPER = ("preset=one_gpu", "train.patch=16", "train.threads=1", "train.batch=32")
"""Images are made small here: sizes of networks do not depend on them."""


def check_the_papers_networks(output: str) -> None:
    assert "8,559,171 parameters, 12.44 GMACs" in output
    assert row(output, "noise_space")[1] == "62,643,075"
    assert "3 tasks x 3 seeds x 2 = 18 trainings" in output
    assert "1 processes x 32 shares x 1 images" in output
    assert "Disk: archives 79 GB, packed 258 GB" in output


def test_the_papers_networks_have_their_published_size(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(what: object, job: Job) -> object:
        return (networks_of(job), Cost(1.0, 2.0**30)) if what is _train else (2**30, 2**31)

    monkeypatch.setattr(measuring, "_in_own_process", work)
    monkeypatch.setenv("COLUMNS", "200")
    dry_run([*PAPER])
    check_the_papers_networks(capsys.readouterr().out)


@pytest.mark.slow
def test_the_papers_networks_are_trained() -> None:
    done = run(*PAPER)
    assert done.returncode == 0, done.stderr
    check_the_papers_networks(done.stdout)


def test_the_rows_of_a_comparison_are_all_there() -> None:
    done = run(*QUICK, "methods=[noise_space,steps_low,only_real,unpaired]")
    assert done.returncode == 0, done.stderr
    for label in ("noise_space", "steps_low", "only_real", "unpaired"):
        assert row(done.stdout, label)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.stepz=1"], r"found the key 'train.stepz', which there is not \(did you mean"),
        (["train.patch=30"], r"train.patch: found 30, expected a multiple of"),
        (["train.accumulate=3"], r"train.batch: found 2, expected a multiple of 3"),
        (["methods=[released]"], r"methods.released.weights.denoise: missing"),
        (
            [
                "methods=[released]",
                "+methods.released.weights.denoise={file:none.pth,sha256:none,image_range:[0,1]}",
            ],
            r"none.pth: not found; download the authors' weights",
        ),
    ],
)
def test_a_wrong_value_ends_in_one_line(overrides: list[str], message: str) -> None:
    done = run(*QUICK, *overrides)
    assert done.returncode == 2
    assert re.search(message, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


def test_released_weights_must_be_of_the_restorer(tmp_path: Path) -> None:
    """With these alone and no pretraining nothing is measured."""
    torch.manual_seed(0)
    restorer = build_restorer(UNetSettings(kind="unet", levels=3, channels=8))  # the tiny preset's
    weights = tmp_path / "denoise.pth"
    torch.save(
        {f"RestorationNet.{n}": value for n, value in restorer.state_dict().items()}, weights
    )
    given = f"{{file:{weights},sha256:{sha256_of(weights)},image_range:[0,1]}}"
    chosen = ("methods=[released]", f"+methods.released.weights.denoise={given}")
    done = run(*QUICK, *chosen, "train.pretrain_steps=0")
    assert done.returncode == 0, done.stderr
    assert "= 0 trainings" in done.stdout and "measuring" not in done.stdout
    other = run(*QUICK, *chosen, "restorer=unet_small")
    assert other.returncode == 2 and "weights of another network" in other.stderr


def test_only_what_is_trained_is_listed(tmp_path: Path) -> None:
    compose(["preset=tiny", "methods=[vanilla,noise_space]", "train.steps=9",
             "train.pretrain_steps=5", "methods.noise_space.start=scratch"],
            tmp_path / "p.yaml")  # fmt: skip
    found = trainings(read_params(tmp_path / "p.yaml"))
    assert [(label, updates) for label, _, updates in found] == [
        ("(pretraining)", 5), ("vanilla", 4), ("noise_space", 9),
    ]  # fmt: skip


def test_what_would_not_fit_is_said(tmp_path: Path) -> None:
    compose(["preset=paper"], tmp_path / "p.yaml")
    params = read_params(tmp_path / "p.yaml")
    networks = Networks(restorer=1, extra=1, giga_macs=1.0)
    said = " ".join(conclusions(params, [Row("x", 3, 10, networks, Cost(1.0, 2.0**45))]))
    assert "DOES NOT FIT" in said
    # 10 updates of a second, three tasks of three seeds
    assert "this machine's rate: 90 s" in said
    assert "train.devices is 8" in said


def test_costs_are_extrapolated_along_a_line() -> None:
    costs = (Cost(seconds=2.0, memory=100.0), Cost(seconds=3.5, memory=160.0))
    assert extrapolate((1, 2), costs, 1) == costs[0]
    assert extrapolate((1, 2), costs, 6) == Cost(seconds=9.5, memory=400.0)
