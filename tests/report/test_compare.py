"""Two states side by side: by hand, then from git and from an experiment of DVC."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo

from pipeline.commands.compare import main
from pipeline.report.compare import (
    PER_IMAGE,
    State,
    flat,
    read_scores,
    read_state,
    scores_table,
    settings_table,
)
from pipeline.runtime.errors import UserError
from tests.helpers import preloaded
from tests.report.test_report_cost import git

HEADER = "task,data_set,protocol,scene,id,method,seed,psnr,ssim\n"
SCENES = "abcdef"


def table(
    gains: tuple[float, ...], seeds: str = "0", protocol: str = "sidd", method: str = "vanilla",
    ids: str = SCENES,
) -> str:  # fmt: skip
    """Return a table of six images; seed 1 scores 2 dB more than seed 0."""
    rows = [
        f"denoise,set,{protocol},{scene},{image},{method},{seed},{20 + gain + 2 * int(seed)},0.5"
        for seed in seeds
        for scene, image, gain in zip(SCENES, ids, gains, strict=True)
    ]
    return HEADER + "\n".join(rows) + "\n"


ZERO = (0.0,) * 6
UP = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)


def state(name: str, text: str, **settings: Any) -> State:
    return State(name, settings, read_scores(text))


def row(a: str, b: str) -> list[str]:
    (cells,) = scores_table(state("a", a), state("b", b)).rows
    return [cell.text for cell in cells]


def test_differences_by_hand() -> None:
    found = row(table(ZERO), table(UP))
    assert found[:5] == ["denoise: set, sidd", "vanilla", "20.00", "23.50", "+3.50"]
    # all six scenes of one sign: 2 / 2^6
    assert found[6:] == ["0.0312", "0.5000", "0.5000", "+0.0000", "-", "-"]
    low, high = map(float, found[5].split(" to "))
    assert 1 <= low < 3.5 < high <= 6


def test_seeds_are_averaged_image_by_image() -> None:
    """Mean of 20 and 22 over two seeds; more seeds do not count as more images."""
    found = row(table(ZERO), table(ZERO, seeds="01"))
    assert found[2:7] == ["20.00", "21.00 ± 1.41", "+1.00", "+1.00 to +1.00", "0.0312"]


def test_p_values_are_corrected_for_the_number_of_rows() -> None:
    def both(gains: tuple[float, ...]) -> str:
        return table(gains) + table(gains, method="other").removeprefix(HEADER)

    rows = scores_table(state("a", both(ZERO)), state("b", both(UP))).rows
    assert [row[6].text for row in rows] == ["0.0625", "0.0625"]


def test_the_degraded_input_is_shown_and_not_tested() -> None:
    """Among the methods it would make every p-value larger without being one."""

    def both(gains: tuple[float, ...]) -> str:
        return table(gains, method="degraded") + table(gains).removeprefix(HEADER)

    scores = scores_table(state("a", both(ZERO)), state("b", both(UP)))
    assert [row[6].text for row in scores.rows] == ["-", "0.0312"]
    assert [row[4].text for row in scores.rows] == ["+3.50", "+3.50"]
    assert "corrected for their number, 1 without the input" in scores.caption


def test_lpips_and_the_difference_of_ssim() -> None:
    def with_lpips(ssim: float, lpips: float) -> str:
        first, *rows = table(ZERO).splitlines()
        return "\n".join([f"{first},lpips", *(f"{row[:-3]}{ssim},{lpips}" for row in rows)]) + "\n"

    assert row(with_lpips(0.5, 0.3), with_lpips(0.75, 0.2))[7:] == [
        "0.5000", "0.7500", "+0.2500", "0.3000", "0.2000",
    ]  # fmt: skip


def test_protocols_are_never_compared() -> None:
    with pytest.raises(UserError, match=r"denoise, set: .*protocols sidd and y.*cannot be comp"):
        row(table(ZERO), table(UP, protocol="y"))
    mixed = table(ZERO) + table(ZERO, seeds="1", protocol="rgb").removeprefix(HEADER)
    with pytest.raises(UserError, match="protocols rgb and sidd"):
        read_scores(mixed)


def test_other_images_and_missing_restorers_are_told() -> None:
    assert row(table(ZERO), table(UP, ids="abcdeX"))[4:7] == [
        "-", "other images: not compared", "-",
    ]  # fmt: skip
    rows = scores_table(state("a", table(ZERO)), state("b", table(UP, method="other"))).rows
    assert [[cell.text for cell in row[1:7]] for row in rows] == [
        ["vanilla", "20.00", "-", "-", "-", "-"], ["other", "-", "23.50", "-", "-", "-"],
    ]  # fmt: skip


def test_settings_that_differ() -> None:
    a, b = (
        flat({"train": {"steps": steps, "betas": [1, 2]}, "seeds": [0], **more})
        for steps, more in ((8, {}), (9, {"new": {"key": None}}))
    )
    found = settings_table(State("a", a, {}), State("b", b, {}))
    assert [[cell.text for cell in row] for row in found.rows] == [
        ["train.steps", "8", "9"], ["new.key", "(not there)", "None"],
    ]  # fmt: skip
    assert settings_table(State("a", a, {}), State("b", a, {})).caption == "No setting differs"


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository whose table of images is in DVC's cache; gains 0 at first, then UP."""
    monkeypatch.chdir(tmp_path)
    git("init", "--quiet")
    for key, value in (("user.name", "test"), ("user.email", "test@localhost")):
        git("config", key, value)
    repo = Repo.init()
    Path("dvc.yaml").write_text("stages: {}\n")
    for name, gains in (("first", ZERO), ("second", UP)):
        PER_IMAGE.parent.mkdir(parents=True, exist_ok=True)
        PER_IMAGE.write_text(table(gains))
        Path("params.yaml").write_text(f"train: {{margin: {len(name)}}}\n")
        repo.add(PER_IMAGE.as_posix())
        git("add", "--all")
        git("commit", "--quiet", "--message", name)
        git("tag", name)
    return tmp_path


def test_revisions_are_read_from_the_cache(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["first", "HEAD"])
    shown = capsys.readouterr().out
    assert "| train.margin | 5 | 6 |" in shown
    assert "| denoise: set, sidd | vanilla | 20.00 | 23.50 | +3.50 |" in shown
    main(["second", "workspace", "--out", "same.csv"])
    assert "23.50,23.50,+0.00" in Path("same.csv").read_text()
    main(["first", "second", "--out", "same.tex"])
    assert r"\toprule" in Path("same.tex").read_text()


def test_an_experiment_is_found_by_its_name(repository: Path) -> None:
    git("update-ref", "refs/exps/aa/bbbb/gifted-name", git("rev-parse", "first"))
    found = read_state("gifted-name")
    assert (found.name, found.settings) == ("gifted-name", {"train.margin": 5})


def test_what_cannot_be_read_is_told(repository: Path) -> None:
    with pytest.raises(UserError, match="nowhere: no such revision or experiment"):
        read_state("nowhere")
    with pytest.raises(UserError, match=r"--out: found x.pdf, expected .*\.md, \.csv, \.tex"):
        main(["first", "second", "--out", "x.pdf"])
    git("rm", "--quiet", f"{PER_IMAGE}.dvc")
    git("commit", "--quiet", "--message", "without")
    with pytest.raises(UserError, match=r"HEAD: cannot read .*per_image\.csv.*dvc pull"):
        read_state("HEAD")


def test_a_clone_without_cache_is_told(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As files that are tracked and as a folder: DVC raises another class of error for each."""
    git("rm", "--quiet", "-r", PER_IMAGE.parent.as_posix())
    Repo().add(PER_IMAGE.parent.as_posix())
    git("add", "--all")
    git("commit", "--quiet", "--message", "folder")
    git("clone", "--quiet", ".", "clone")
    monkeypatch.chdir(repository / "clone")
    for name in ("first", "HEAD", "workspace"):
        with pytest.raises(UserError, match=rf"{name}: cannot read .*'dvc pull'"):
            read_state(name)


@pytest.mark.parametrize(
    ("name", "told"),
    [("nowhere", "nowhere:"), ("", "found ''"), ("HEAD:params.yaml", "found 'HEAD:params.yaml'"),
     ("HEAD^{tree}", "found 'HEAD^{tree}'")],
)  # fmt: skip
def test_the_command_tells_in_one_line(repository: Path, name: str, told: str) -> None:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [preloaded.python(), "-m", "pipeline", "compare", name, "first"],
        env={"PYTHONPATH": str(root), "PATH": "/usr/bin:/bin"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {told}") and done.stderr.count("\n") == 1


def test_settings_with_a_conflict_are_named(repository: Path) -> None:
    (repository / "params.yaml").write_text("<<<<<<< HEAD\na: 1\n")
    done = subprocess.run(
        [preloaded.python(), "-m", "pipeline", "compare", "first", "workspace"],
        env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: params.yaml of first or workspace: not valid YAML (")
