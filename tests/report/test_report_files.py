"""Tables as files, and the before-and-after viewer."""

import base64
import csv
import dataclasses
import io
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.config.compose import CONF, compose
from pipeline.config.methods import (
    ApBsnSettings,
    Neighbor2NeighborSettings,
    TargetSupervisedSettings,
)
from pipeline.config.params import Params
from pipeline.config.read import read_params
from pipeline.images.pixels import Pixels
from pipeline.report.collect import collect
from pipeline.report.examples.choice import compared, examples
from pipeline.report.examples.failures import failures_table
from pipeline.report.examples.viewer import comparisons, difference
from pipeline.report.figures.drawing import pixels_to_webp
from pipeline.report.notes import notes
from pipeline.report.page import FIGURES, write_report
from pipeline.report.results import real_domain
from pipeline.report.statistics import mean_and_std
from pipeline.report.tables.differences import all_tests, difference_table
from pipeline.report.tables.headline import (
    data_sets_table,
    headline_table,
)
from pipeline.report.tables.scores import Cell, Table, interval_cell, score_table, spread_cell
from pipeline.report.tables.writing import (
    LATEX,
    NARROWED,
    escape_latex,
    to_csv,
    to_latex,
    to_markdown,
)
from pipeline.runtime.paths import DEGRADED, SIMULATED, Run
from tests.report import test_report, test_report_tables
from tests.report.test_report import ADAPTED_PSNR, OUT, TASK, VANILLA_PSNR
from tests.report.test_report_tables import TABLE, texts

composed = test_report_tables.composed
params = test_report_tables.params


# Files


def test_csv_holds_the_cells() -> None:
    assert list(csv.reader(io.StringIO(to_csv(TABLE)))) == [
        ["Name", "Kind", "x (dB)"], ["a", "k|1", "1.0 ± 0.1"], ["b", "k,2", "2.0"],
    ]  # fmt: skip


def test_csv_has_one_number_a_field() -> None:
    rows = (
        (Cell("-"), spread_cell(1, 0.25, 2), interval_cell((0.5, 2), 1)),
        (Cell("b"), Cell("3.00"), interval_cell(None, 1)),
        (Cell("c"), Cell("-"), Cell("-")),
    )
    table = Table("x", ("Name", "x (dB), mean ± std over 2 seeds", "Interval"), rows)
    assert to_csv(table).splitlines() == [
        'Name,"x (dB), mean over seeds","x (dB), std over seeds","Interval, low","Interval, high"',
        "-,1.00,0.25,0.5,2.0",
        "b,3.00,,- (one scene),",
        "c,,,,",
    ]
    assert "| b | 3.00 | - (one scene) |" in to_markdown(table)
    assert "| - | 1.00 ± 0.25 | 0.5 to 2.0 |" in to_markdown(table)


def test_all_results_can_be_read_as_numbers(
    composed: Params, tmp_path: Path, monkeypatch: Any
) -> None:
    two = dataclasses.replace(composed, seeds=(0, 1))
    test_report.enter(tmp_path, monkeypatch)
    test_report.make_workspace(two)
    write_report(two, OUT)
    with (OUT / "tables" / "headline.csv").open(newline="") as file:
        names, *rows = csv.reader(file)
    assert len(set(names)) == len(names)
    assert names[2:8] == [
        "PSNR (dB), mean over seeds", "PSNR (dB), std over seeds", "95 % interval of PSNR, low",
        "95 % interval of PSNR, high", "SSIM, mean over seeds", "SSIM, std over seeds",
    ]  # fmt: skip
    numbers = [dict(zip(names[2:], row[2:], strict=True)) for row in rows]
    assert [row["PSNR (dB), std over seeds"] for row in numbers] == ["", "0.00", "0.00"]
    for row in numbers:
        for name in set(row) - {"LPIPS", "Paper: data"}:
            assert row[name] == "" or float(row[name]) >= 0


def test_latex_is_a_booktabs_table() -> None:
    lines = to_latex(TABLE, "label").splitlines()
    assert lines[1:] == [
        r"\begin{table}", r"\centering", r"\caption{50 \% of a\_b \& c}", r"\label{tab:label}",
        NARROWED, r"\begin{tabular}{llr}", r"\toprule", r"Name & Kind & x (dB) \\", r"\midrule",
        r"a & k\textbar{}1 & \textbf{1.0 $\pm$ 0.1} \\", r"b & k,2 & \textit{2.0} \\",
        r"\bottomrule", r"\end{tabular}}", r"\end{table}",
    ]  # fmt: skip
    assert escape_latex(r"\{~^$#<") == (
        r"\textbackslash{}\{\textasciitilde{}\textasciicircum{}\$\#\textless{}"
    )


def test_latex_takes_no_cell_for_an_option_of_the_row_before() -> None:
    rows = tuple((Cell(name), Cell("1")) for name in ("[a]", "*", "b"))
    lines = to_latex(Table("x", ("n", "m"), rows), "label").splitlines()
    assert lines[10:13] == [r"{}[a] & 1 \\", r"{}* & 1 \\", r"b & 1 \\"]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs LaTeX's pdflatex")
def test_latex_accepts_every_table_and_none_is_wider_than_the_text(
    params: Params, tmp_path: Path
) -> None:
    """Of a report, and one that is wider by itself, with every letter that LaTeX takes for more."""
    write_report(params, OUT)
    odd = "".join(LATEX)
    tables = {path.name: path.read_text() for path in (OUT / "tables").glob("*.tex")}
    tables["odd.tex"] = to_latex(Table(odd, (odd,) * 12, ((Cell(odd),) * 12,)), "odd")
    page = [r"\documentclass{article}", r"\usepackage{booktabs,graphicx}", r"\begin{document}"]
    for name, text in tables.items():
        (tmp_path / name).write_text(text)
        page += [rf"\input{{{name}}}", r"\clearpage"]
    (tmp_path / "page.latex").write_text("\n".join([*page, r"\end{document}", ""]))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.latex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert (tmp_path / "page.pdf").stat().st_size > 0


def test_markdown_is_a_table() -> None:
    assert to_markdown(TABLE).splitlines() == [
        r"*50 % of a_b \& c*", "", "| Name | Kind | x (dB) |", "| --- | --- | ---: |",
        r"| a | k\|1 | **1.0 ± 0.1** |", "| b | k,2 | *2.0* |",
    ]  # fmt: skip


def test_every_table_is_there_in_three_forms(params: Params) -> None:
    write_report(params, OUT)
    names = {path.name for path in (OUT / "tables").iterdir()}
    kinds = ("scores", "differences", "harm", "failures", "published")
    tables = {f"{kind}_{TASK}" for kind in kinds}
    tables |= {"headline", "provenance", "restorers", "commands"}
    endings = ("csv", "tex", "md")
    assert names == {f"{table}.{ending}" for table in tables for ending in endings} | {
        "per_image.csv"
    }


def test_statistics_can_be_made_anew_from_the_table_of_images(
    composed: Params, tmp_path: Path, monkeypatch: Any
) -> None:
    two = dataclasses.replace(composed, seeds=(0, 1))
    test_report.enter(tmp_path, monkeypatch)
    test_report.make_workspace(two)
    odd = tuple(value + 1 / 3 for value in VANILLA_PSNR)
    test_report.write_scores(Run(TASK, "vanilla", 1), odd)
    write_report(two, OUT)
    with (OUT / "tables" / "per_image.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * (1 + 2 * 2)
    assert {row["seed"] for row in rows if row["method"] == DEGRADED} == {""}
    assert {row["protocol"] for row in rows} == {"sidd"}
    by_seed = [
        [float(row["psnr"]) for row in rows if (row["method"], row["seed"]) == ("vanilla", seed)]
        for seed in ("0", "1")
    ]
    assert by_seed == [list(VANILLA_PSNR), list(odd)], "to the last digit"
    mean, deviation = mean_and_std([float(np.mean(scores)) for scores in by_seed])
    assert f"| vanilla | {mean:.2f} ± {deviation:.2f} |" in (OUT / "report.md").read_text()


def test_every_number_has_its_command(params: Params) -> None:
    write_report(params, OUT)
    with (OUT / "tables" / "commands.csv").open(newline="") as file:
        commands = {(row["Restorer"], row["Seed"]): row["Command"] for row in csv.DictReader(file)}
    assert commands == {
        (DEGRADED, "-"): f"dvc repro evaluate_degraded@{TASK}",
        ("vanilla", "0"): f"dvc repro evaluate@{TASK}-vanilla-0",
        ("noise_space", "0"): f"dvc repro evaluate@{TASK}-noise_space-0",
    }


def test_what_restoring_takes(params: Params) -> None:
    test_report.write_model(params, Run(TASK, "vanilla", 0), giga_macs_128=12.4399)
    test_report.write_model(params, Run(TASK, "noise_space", 0), extra_parameters=98_765)
    write_report(params, OUT)
    text = (OUT / "report.md").read_text()
    assert "| denoise, vanilla | unet (levels 2, channels 8) | 1,234 | 12.44 | - |" in text
    assert "| denoise, noise_space | unet (levels 2, channels 8) | 1,234 | - | 98,765 |" in text


def test_cost_is_on_a_page_of_its_own(params: Params) -> None:
    test_report.write_cost("train@denoise-vanilla-0", 20.0, 1000)
    write_report(params, OUT)
    plain, full = ((OUT / f"{name}.html").read_text() for name in ("report", "report_with_cost"))
    assert "1,000" in full and "1,000" not in plain
    assert "report_with_cost.html" in plain
    assert re.sub(r'(?s)<h2 id="cost">.*?</section>', "", full) == (
        re.sub(r'(?s)<h2 id="cost">.*?</section>', "", plain)
    )


# Before and after


def test_versions_of_an_image(params: Params) -> None:
    assert ADAPTED_PSNR[1] - VANILLA_PSNR[1] == 3
    data_set = collect(params)[0].data_sets[0]
    shown = comparisons(params, examples(params, data_set))
    assert [one.title.split(",")[0] for one in shown] == [
        "largest gain", "median gain", "smallest gain",
    ]  # fmt: skip
    assert [layer.label for layer in shown[0].layers] == [
        "degraded input", "vanilla", "noise_space", "clean",
        "vanilla minus clean, 4 times", "noise_space minus clean, 4 times",
    ]  # fmt: skip
    assert (shown[0].left, shown[0].right) == (0, 2)
    assert shown[0].layers[1].alt == "attic_2, vanilla, PSNR 22.00 dB"


def rgb(file: Any) -> NDArray[np.float64]:
    with Image.open(file) as opened:
        return np.asarray(opened.convert("RGB"), float)


def test_the_page_is_light_and_the_files_beside_it_are_exact(params: Params) -> None:
    write_report(params, OUT)
    page = (OUT / "report.html").read_text()
    inside = [
        base64.b64decode(data) for data in re.findall(r"data:image/webp;base64,([^\"]+)", page)
    ]
    beside = list((OUT / FIGURES).glob("*.png"))
    shown = {
        data: np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), float) for data in inside
    }
    for file in beside:
        with Image.open(file) as opened:
            exact = np.asarray(opened.convert("RGB"), float)
        (light,) = {
            data for data, seen in shown.items()
            if seen.shape == exact.shape and np.abs(seen - exact).mean() < 3
        }  # fmt: skip
        assert len(light) < file.stat().st_size, file.name
    assert len(beside) >= 2


def test_pictures_of_restored_photographs_lose_nothing(pixels: Callable[..., Pixels]) -> None:
    random = pixels(0, 40, 50)
    with Image.open(io.BytesIO(pixels_to_webp(random))) as opened:
        np.testing.assert_array_equal(np.asarray(opened), random)


def with_bound(params: Params) -> Params:
    """Return the configuration with an upper bound as its last method, and write its files."""
    bound = TargetSupervisedSettings("target_supervised", "pretrained")
    wider = dataclasses.replace(params, methods={**params.methods, "bound": bound})
    test_report.write_run(wider, Run(TASK, "bound", 0), (40.0, 40.0, 40.0, 30.0))
    return wider


def test_a_bound_chooses_no_image(params: Params) -> None:
    data_set = collect(params)[0].data_sets[0]
    before = examples(params, data_set), failures_table(params, data_set)
    wider = with_bound(params)
    data_set = collect(wider)[0].data_sets[0]
    shown, failed = examples(wider, data_set), failures_table(wider, data_set)
    assert [row.title for row in shown.rows] == [row.title for row in before[0].rows]
    assert shown.rule == before[0].rule and failed == before[1]
    # shown it is, among all restorers
    assert [panel.title for panel in shown.rows[0].panels][-2:] == ["bound", "clean"]
    alone = dataclasses.replace(wider, methods={"bound": wider.methods["bound"]})
    assert compared(alone) == ("bound", DEGRADED)
    plain = {name: wider.methods[name] for name in ("vanilla", "bound")}
    assert compared(dataclasses.replace(wider, methods=plain)) == ("vanilla", DEGRADED)


def test_a_bound_is_called_so_in_all_results(params: Params) -> None:
    wider = with_bound(params)
    rows = texts(headline_table(wider, collect(wider)))
    assert [row[1] for row in rows][-2:] == ["noise_space", "bound (upper bound)"]
    write_report(wider, OUT)
    results = (OUT / "report.html").read_text().split('id="results"')[1].split("</section>")[0]
    assert '<td class="words">bound (upper bound)</td>' in results
    assert "bound (upper bound)" in (OUT / "tables" / "headline.csv").read_text()


def test_it_bounds_the_domain_alone_whose_truth_it_saw(params: Params) -> None:
    wider = with_bound(params)
    for run in test_report.runs(wider):
        path = run.evaluation / "per_image.csv"
        lines = path.read_text().splitlines()
        lines[3:] = [
            line.replace("photographs,", "photographs, sharp_grain,").replace("True", "False")
            for line in lines[3:]
        ]
        path.write_text("\n".join(lines) + "\n")
    results = collect(wider)
    home, elsewhere = results[0].data_sets
    assert elsewhere.name == "tiny photographs, sharp_grain, simulated real"
    truth = "trained on the truth of skimage, simulated real"
    assert [texts(score_table(wider, one))[-1][0] for one in (home, elsewhere)] == [
        "bound (upper bound)", f"bound ({truth})",
    ]  # fmt: skip
    assert texts(data_sets_table(wider, results[0]))[-1][0] == f"bound ({truth})", "of both"
    at_home, abroad = (next(n for n in notes(wider, one) if "bound:" in n)
                       for one in (home, elsewhere))  # fmt: skip
    assert "An upper bound, no competitor" in at_home
    assert "upper" not in abroad and "it bounds nothing here; no competitor" in abroad
    # the highest score there, and still neither bold nor tested
    best = [row[0].text for row in score_table(wider, elsewhere).rows if row[1].best]
    assert best == ["noise_space"]
    tested = difference_table(wider, elsewhere, all_tests(wider, results))
    assert [row[0] for row in texts(tested)] == ["noise_space"]


def test_the_real_domain_is_what_was_seen_of_real_photographs(params: Params) -> None:
    data_set = collect(params)[0].data_sets[0]
    assert data_set.of_real_domain
    assert not dataclasses.replace(data_set, seen=False).of_real_domain
    assert not dataclasses.replace(data_set, domain="synthetic").of_real_domain
    task = params.tasks[TASK]
    assert real_domain(params, TASK) == f"{task.sources.real}, {SIMULATED}"
    real = dataclasses.replace(task, simulated_real=None)
    assert real_domain(dataclasses.replace(params, tasks={TASK: real}), TASK) == task.sources.real


def test_what_is_not_alike_is_said_below_the_scores(params: Params) -> None:
    def said(used: Params) -> list[str]:
        return [note for note in notes(used, collect(used)[0].data_sets[0])
                if re.search(r"scratch|assumes|tuned|authors,", note)]  # fmt: skip

    (tuned,) = said(params)
    assert tuned == (
        "noise_space: weight and ramp of this preset were chosen on the truth of real training"
        " scenes, with scores of test images in sight, so a gain there is that of a tuned method."
    )
    afresh = Neighbor2NeighborSettings("neighbor2neighbor", "scratch", weight=2.0)
    wider = dataclasses.replace(params, methods={**params.methods, "ne2ne": afresh})
    test_report.write_run(wider, Run(TASK, "ne2ne", 0), VANILLA_PSNR)
    assumes, start, tuned = said(wider)
    assert assumes.startswith("ne2ne: assumes noise of mean 0 that is independent from pixel")
    assert start == (
        "ne2ne: from scratch, 8 updates of its own on real images alone. A method that"
        " starts pretrained shares 4 updates on synthetic pairs and makes 4 of its own."
    )
    assert tuned.endswith("The weights of ne2ne come from their papers or the size of gradients;"
                          " at most two were tried: not with equal effort.")  # fmt: skip
    paper = dataclasses.replace(wider, preset="paper")
    assert said(paper)[-1].startswith("noise_space: values of its authors, for the paper's data. ")
    pretrained = dataclasses.replace(afresh, start="pretrained")
    alike = dataclasses.replace(wider, methods={**params.methods, "ne2ne": pretrained})
    assert len(said(alike)) == 2, "nothing of the start"
    write_report(wider, OUT)
    for ending in ("md", "html"):
        text = (OUT / f"report.{ending}").read_text()
        assert "8 updates of its own" in text and "More is not alike" in text


def test_only_tuned_presets_have_the_tuned_values(tmp_path: Path) -> None:
    """The words on tuning hold for presets whose conf/noise_space is that of the demo."""
    values = {}
    for path in (CONF / "noise_space").glob("*.yaml"):
        compose([f"preset={path.stem}"], tmp_path / "params.yaml")
        method = read_params(tmp_path / "params.yaml").methods["noise_space"]
        values[path.stem] = (method.weight, method.ramp)
        tuned = set(method.tuned_on)
    assert {name for name, found in values.items() if found == values["demo"]} == tuned


def test_a_bound_alone_above_the_input_is_no_success(params: Params) -> None:
    wider = with_bound(params)
    test_report.write_scores(Run(TASK, DEGRADED), (30.0,) * 4)
    found = notes(wider, collect(wider)[0].data_sets[0])
    assert "No method has a higher mean PSNR than the degraded input." in found


def test_a_method_in_the_manner_of_another_is_called_so(params: Params) -> None:
    wider = dataclasses.replace(
        params, methods={**params.methods, "ap_bsn": ApBsnSettings("ap_bsn", "scratch", 2)}
    )
    test_report.write_run(wider, Run(TASK, "ap_bsn", 0), ADAPTED_PSNR)
    write_report(wider, OUT)
    page = (OUT / "report.html").read_text()
    label = "ap_bsn (in the manner of AP-BSN)"
    # all results, scores, differences, harm; not beside what the paper published
    assert page.count(f">{label}<") == 4
    assert "in the manner of AP-BSN, not its network" in page


def test_difference_by_hand() -> None:
    restored = np.array([[[10, 20, 0], [255, 5, 5]]], np.uint8)
    clean = np.array([[[10, 15, 40], [0, 5, 6]]], np.uint8)
    assert difference(restored, clean).tolist() == [[[128, 148, 0], [255, 128, 124]]]
