"""Tables of the report and their files: by hand, on the workspace of test_report."""

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
from pipeline.report import write_report
from pipeline.report.collect import DataSet, TaskResults, collect, real_domain
from pipeline.report.examples.choice import compared, examples
from pipeline.report.examples.failures import failure_examples, failures_table, harm_table
from pipeline.report.examples.viewer import comparisons, difference
from pipeline.report.figures.drawing import pixels_to_webp
from pipeline.report.notes import notes
from pipeline.report.statistics import mean_and_std
from pipeline.report.tables.differences import all_tests, difference_table, main_method_table
from pipeline.report.tables.headline import (
    ablation_table,
    data_sets_table,
    headline_table,
    published_table,
)
from pipeline.report.tables.published import of_task, published
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
from tests.report import test_report
from tests.report.test_report import ADAPTED_PSNR, DATA_SET, OUT, TASK, VANILLA_PSNR

composed = test_report.composed
params = test_report.params

TABLE = Table(
    caption="50 % of a_b & c",
    columns=("Name", "Kind", "x (dB)"),
    rows=(
        (Cell("a"), Cell("k|1"), Cell("1.0 ± 0.1", best=True)),
        (Cell("b"), Cell("k,2"), Cell("2.0", theirs=True)),
    ),
    words=2,
)


def texts(table: Table | None) -> list[list[str]]:
    assert table is not None
    return [[cell.text for cell in row] for row in table.rows]


# The paper's numbers


PAPER = """
1 SIDD Vanilla vanilla 26.58 .6132 .3171
1 SIDD DANN dann 30.09 .7832 .1348
1 SIDD DSN dsn 28.40 .6984 .2265
1 SIDD PixelDA pixel_da 29.24 .7611 .1403
1 SIDD CyCADA cycada 30.81 .8067 .1256
1 SIDD Ne2Ne neighbor2neighbor 25.61 .5647 .3039
1 SIDD MaskedD - 28.51 .7196 .2348
1 SIDD Noise-DA noise_space 34.71 .9202 .0903
2 SPA Vanilla vanilla 33.04 .9540 .0477
2 SPA DANN dann 32.21 .9443 .0597
2 SPA DSN dsn 33.56 .9552 .0512
2 SPA PixelDA pixel_da 30.20 .9288 .0758
2 SPA CyCADA cycada 32.21 .9442 .0597
2 SPA NLCL - 20.68 .8412 .0967
2 SPA Restormer - 34.17 .9492 .0488
2 SPA Noise-DA noise_space 34.39 .9571 .0462
3 RealBlur-J Vanilla vanilla 26.27 .8012 .1389
3 RealBlur-J DANN dann 26.11 .7945 .1345
3 RealBlur-J DSN dsn 26.28 .8003 .1380
3 RealBlur-J PixelDA pixel_da 24.71 .7646 .1583
3 RealBlur-J CyCADA cycada 26.36 .7936 .1340
3 RealBlur-J SelfDeblur - 23.23 .6699 .1340
3 RealBlur-J VDIP - 24.89 .7404 .1589
3 RealBlur-J Noise-DA noise_space 26.46 .8048 .1363
4 SIDD vanilla vanilla 26.58 .6132 -
4 SIDD steps_1_to_100_only steps_low 16.77 .6070 -
4 SIDD steps_900_to_1000_only steps_high 27.36 .6590 -
4 SIDD steps_1_to_1000 steps_all 32.07 .8706 -
4 SIDD +_channel_shuffling shuffling 32.91 .9082 -
4 SIDD +_residual_swapping_(the_method) noise_space 34.71 .9202 -
4 SIDD only_the_synthetic_condition only_synthetic 26.83 .6286 -
4 SIDD only_the_real_condition only_real 32.60 .8831 -
5 SIDD Noise-DA*,_larger_restorer - 35.52 .9297 -
5 SIDD C2N - 35.35 .9370 -
5 SIDD AP-BSN - 34.90 .9000 -
"""
"""Typed from the paper: table, data set, its method, ours, PSNR, SSIM, LPIPS."""


def test_the_papers_numbers_are_those_of_its_tables() -> None:
    def shown(value: object) -> str:
        return "-" if value is None else str(value).replace(" ", "_")

    found = [
        (shown(row.table), row.data_set, shown(row.method), shown(row.ours), f"{row.psnr:.2f}",
         *(shown(score and f"{score:.4f}".lstrip("0")) for score in (row.ssim, row.lpips)))
        for row in published()
    ]  # fmt: skip
    assert found == [tuple(line.split()) for line in PAPER.strip().splitlines()]
    problems = {"SIDD": "denoise", "SPA": "derain", "RealBlur-J": "deblur"}
    assert all(row.problem == problems[row.data_set] for row in published())
    assert all(row.protocol.startswith("as published") for row in published())
    sizes = {(r.table, r.method): (r.parameters_m, r.giga_macs) for r in published()}
    known = {key: size for key, size in sizes.items() if size != (None, None)}
    assert known == {
        **{(table, "Noise-DA"): (8.56, 12.48) for table in (1, 2, 3)},
        (5, "Noise-DA*, larger restorer"): (65.19, 22.46),
    }


def test_what_is_only_in_the_manner_of_a_method_has_not_its_numbers(params: Params) -> None:
    wider = dataclasses.replace(
        params, methods={**params.methods, "ap_bsn": ApBsnSettings("ap_bsn", "scratch", 2)}
    )
    test_report.write_run(wider, Run(TASK, "ap_bsn", 0), ADAPTED_PSNR)
    assert texts(headline_table(wider, collect(wider)))[-1][7:] == ["-"] * 4
    shown = {row[0]: row for row in texts(published_table(TASK))}
    assert shown["AP-BSN"] == ["AP-BSN", "-", "5", "-", "-", "34.90", "0.9000", "-"]
    larger = ["Noise-DA*, larger restorer", "-", "5", "65.19", "22.46", "35.52", "0.9297", "-"]
    assert shown["Noise-DA*, larger restorer"] == larger
    assert shown["Noise-DA"][:5] == ["Noise-DA", "noise_space", "1", "8.56", "12.48"]


def test_the_release_stands_beside_the_papers_method(params: Params) -> None:
    wider = test_report.with_released(params)
    row = texts(headline_table(wider, collect(wider)))[-1]
    assert row[1] == test_report.RELEASED
    assert row[7:] == ["34.71", "0.9202", "0.0903", "SIDD, Table 1"]


@pytest.mark.parametrize(
    ("task", "data_set"),
    [("denoise", "SIDD"), ("paper_derain", "SPA"), ("own_deblur", "RealBlur-J"), ("other", None)],
)
def test_a_task_finds_its_table_of_the_paper(task: str, data_set: str | None) -> None:
    assert {row.data_set for row in of_task(task)} == ({data_set} if data_set else set())
    assert (published_table(task) is None) == (data_set is None)


def test_the_headline_keeps_the_papers_numbers_apart(params: Params) -> None:
    table = headline_table(params, collect(params))
    degraded, vanilla, adapted = texts(table)
    assert degraded[:4] == [f"{TASK}: {DATA_SET}, sidd", "degraded input", "23.00",
                            "21.00 to 26.00"]  # fmt: skip
    assert degraded[6:] == ["not measured", "-", "-", "-", "-"]
    assert vanilla[2] == "24.00"
    assert vanilla[7:] == ["26.58", "0.6132", "0.3171", "SIDD, Table 1"]
    assert adapted[2] == "25.25"
    assert adapted[7:] == ["34.71", "0.9202", "0.0903", "SIDD, Table 1"]
    assert table is not None and "other data, other hardware" in table.caption
    assert all(cell.theirs == (place >= 7) for row in table.rows for place, cell in enumerate(row))
    assert [table.span(index) for index in range(3)] == [3, 0, 0]
    write_report(params, OUT)
    assert '<td class="theirs">34.71</td>' in (OUT / "report.html").read_text()
    assert "*34.71*" in (OUT / "report.md").read_text()


def test_the_ablation_in_the_papers_order(params: Params) -> None:
    (task,) = collect(params)
    assert ablation_table(params, task.data_sets[0]) is None, "two rows are no ablation"
    method = params.methods["noise_space"]
    wider = dataclasses.replace(
        params, methods={**params.methods, "shuffling": method, "steps_all": method}
    )
    for name, gain in (("shuffling", 0.5), ("steps_all", -1.0)):
        scores = tuple(value + gain for value in VANILLA_PSNR)
        test_report.write_run(wider, Run(TASK, name, 0), scores)
    rows = texts(ablation_table(wider, collect(wider)[0].data_sets[0]))
    assert [row[0] for row in rows] == ["vanilla", "steps_all", "shuffling", "noise_space"]
    # ours: 24, 23, 24.5, 25.25; theirs: 26.58, 32.07, 32.91, 34.71
    assert [row[2] for row in rows] == ["24.00", "23.00", "24.50", "25.25"]
    assert [row[3] for row in rows] == ["+0.00", "-1.00", "+0.50", "+1.25"]
    assert [row[6] for row in rows] == ["+0.00", "+5.49", "+6.33", "+8.13"]
    write_report(wider, OUT)
    assert (OUT / "tables" / f"ablation_{TASK}.tex").is_file()


def test_the_main_method_against_each_other_by_hand(params: Params) -> None:
    results = collect(params)
    family = all_tests(params, results)
    assert main_method_table(params, results[0].data_sets[0], family) is None
    wider = test_report.with_methods(params, 2)
    write_six_scenes(wider, {"variant_0": 2, "variant_1": 3})
    results = collect(wider)
    table = main_method_table(wider, results[0].data_sets[0], all_tests(wider, results))
    rows = texts(table)
    # six scenes of one sign: 2 / 2^6; of five tests the two of SSIM have no p-value
    assert [[row[place] for place in (0, 1, 2, 4, 5)] for row in rows] == [
        ["vanilla", "PSNR (dB)", "+10.50", "0.0312", "0.156"],
        ["vanilla", "SSIM", "+0.0000", "- (fewer than 6 scenes with a difference)", "-"],
        ["variant_0", "PSNR (dB)", "+3.50", "0.0312", "0.156"],
        ["variant_0", "SSIM", "+0.0000", "- (fewer than 6 scenes with a difference)", "-"],
    ]
    assert rows[1][3] == "+0.0000 to +0.0000"
    assert table is not None and table.caption.startswith("variant_1 minus each other method")
    assert "corrects for all 5 tests of this report" in table.caption
    write_report(wider, OUT)
    assert "corrects for all 5 tests of this report" in (OUT / "report.html").read_text()


def test_all_data_sets_are_one_family_and_a_comparison_has_one_p_value(params: Params) -> None:
    wider = test_report.with_methods(params, 2)
    write_six_scenes(wider, {"variant_0": 2, "variant_1": 3}, repeated=("first", "second"))
    results = collect(wider)
    family = all_tests(wider, results)
    # of each data set two against vanilla in PSNR, the last also in SSIM, and against the other
    assert len(family) == 2 * 5
    for data_set in results[0].data_sets:
        against_vanilla = texts(difference_table(wider, data_set, family))
        of_the_last = texts(main_method_table(wider, data_set, family))
        # 2 / 2^6 times the ten tests
        assert [row[-1] for row in against_vanilla] == ["0.312", "0.312"]
        assert against_vanilla[1][1:] == of_the_last[0][2:]


def write_six_scenes(
    params: Params, steps: dict[str, int], repeated: tuple[str, ...] = (test_report.DATA_SET,)
) -> None:
    """Write scores of six scenes, on which a method gains ``steps`` dB, then twice that and on."""
    names = tuple("abcdef")
    for run in test_report.runs(params):
        psnr = tuple(20.0 + steps.get(run.method, 0) * place for place in range(1, 7))
        tables = []
        for data_set in repeated:
            test_report.write_scores(run, psnr, scenes=names, images=names, data_set=data_set)
            tables.append((run.evaluation / "per_image.csv").read_text().splitlines())
        rows = [row for table in tables for row in table[1:]]
        (run.evaluation / "per_image.csv").write_text("\n".join([tables[0][0], *rows]) + "\n")


def test_what_was_not_trained_on_is_called_unseen(params: Params) -> None:
    first = collect(params)[0].data_sets[0]
    other = dataclasses.replace(first, name="PolyU", seen=False)

    def caption(*data_sets: DataSet) -> str:
        table = data_sets_table(params, TaskResults(TASK, data_sets, {}))
        assert table is not None
        return table.caption

    plain = "PSNR in dB on every data set, protocol sidd"
    assert caption(first, dataclasses.replace(first, name="mine")) == plain
    assert caption(first, other) == f"{plain}. Of a camera or source never seen in training: PolyU"


# Failures


def test_failures_by_hand(params: Params) -> None:
    data_set = collect(params)[0].data_sets[0]
    # degraded 20 22 24 26; vanilla 21 22 26 27; adapted 22 25 25 29
    assert texts(harm_table(params, data_set)) == [
        ["vanilla", "0 of 4", "-", "+0.00 (attic_2)"],
        ["noise_space", "0 of 4", "1 of 4", "+1.00 (beach_1)"],
    ]
    rows = texts(failures_table(params, data_set))
    assert rows[0] == ["beach_1", "beach", "24.00", "26.00", "25.00", "+1.00"]
    assert [row[-1] for row in rows] == ["+1.00", "+2.00", "+3.00", "+3.00"]


def test_failures_are_shown_where_the_adapted_restorer_stored_them(params: Params) -> None:
    """One failure, attic_1, is not stored; of another the restorer beside it lacks a picture."""
    test_report.write_scores(Run(TASK, "noise_space", 0), (19.0, 25.0, 10.0, 27.0))
    store = {"noise_space": ("attic_2", "beach_1", "cellar_1"), "vanilla": ("attic_2", "cellar_1")}
    for method, images in store.items():
        test_report.write_restored(Run(TASK, method, 0), lambda image: test_report.flat(9), images)
    shown = failure_examples(params, collect(params)[0].data_sets[0])
    assert [row.title.split(",")[0] for row in shown.rows] == ["beach_1", "cellar_1", "attic_2"]
    assert shown.rows[0].title == "beach_1, gain over the degraded input -14.00 dB"
    assert shown.rule.startswith("The pictures are the first 3 of 3 of these 4 images that noise_s")
    lacking, whole = (comparisons(params, shown)[place] for place in (0, 1))
    assert [layer.label for layer in lacking.layers] == [
        "degraded input", "noise_space", "clean", "noise_space minus clean, 4 times",
    ]  # fmt: skip
    assert len(whole.layers) == 6
    write_report(params, OUT)
    assert "beach_1, gain over the degraded input -14.00 dB" in (OUT / "report.html").read_text()
    # of four images two were stored by both
    rule = "among the 2 of 4 images that every restorer stored"
    assert rule in (OUT / "report.md").read_text()


def test_images_are_ranked_by_the_mean_over_the_seeds(
    composed: Params, tmp_path: Path, monkeypatch: Any
) -> None:
    two = dataclasses.replace(composed, seeds=(0, 1))
    test_report.enter(tmp_path, monkeypatch)
    test_report.make_workspace(two)
    # gains over vanilla, 1 3 -1 2 with the first seed, become 1 -2 -1 2
    test_report.write_scores(Run(TASK, "noise_space", 1), (22.0, 15.0, 25.0, 29.0))
    data_set = collect(two)[0].data_sets[0]
    shown = examples(two, data_set)
    assert [row.title for row in shown.rows] == [
        "largest gain, +2.00 dB", "median gain, +1.00 dB", "smallest gain, -2.00 dB",
    ]  # fmt: skip
    assert shown.rows[2].panels[2].psnr == 25.0, "of the picture, which is the first seed's"
    assert "mean over the seeds" in shown.rule
    assert failures_table(two, data_set).rows[0][0].text == "attic_2"


def test_an_image_made_worse_is_counted(params: Params) -> None:
    test_report.write_scores(Run(TASK, "noise_space", 0), (19.0, 25.0, 10.0, 29.0))
    rows = texts(harm_table(params, collect(params)[0].data_sets[0]))
    assert rows[1] == ["noise_space", "2 of 4", "2 of 4", "-14.00 (beach_1)"]


def test_equal_images_are_counted(params: Params) -> None:
    assert not any("equal" in note for note in notes(params, collect(params)[0].data_sets[0]))
    test_report.write_scores(Run(TASK, "noise_space", 0), (100.0, 25.0, 100.0, 29.0))
    found = notes(params, collect(params)[0].data_sets[0])
    assert any(
        note.startswith("Images equal to the clean one, over all seeds: noise_space 2. ")
        and note.endswith("counts as 100 dB.")
        for note in found
    )


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
    (OUT / "tables" / "of_a_task_that_is_gone.csv").write_text("")
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
    folder = Run(TASK, "vanilla", 0).evaluation
    (folder / "facts.json").write_text('{"giga_macs_128": 12.4399, "lpips": "no"}')
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


def test_pictures_of_the_viewer_lose_nothing(pixels: Callable[..., Pixels]) -> None:
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
        " scenes, not on test images, so a gain there is that of a tuned method."
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


# LPIPS


def test_lpips_by_hand_lower_is_better(params: Params) -> None:
    for run, values in zip(test_report.runs(params), ("0.4", "0.3", "0.1"), strict=True):
        write_lpips(run, (values,) * 4)
    write_report(params, OUT)
    text = (OUT / "report.md").read_text()
    assert re.search(r"\| noise_space \| .* \| \*\*0\.1000\*\* \| 0\.1000 to 0\.1000 \|", text)
    assert "not measured" not in text
    with (OUT / "tables" / "per_image.csv").open(newline="") as file:
        assert {row["lpips"] for row in csv.DictReader(file)} == {"0.4", "0.3", "0.1"}


def write_lpips(run: Run, values: tuple[str, ...]) -> None:
    path = run.evaluation / "per_image.csv"
    head, *lines = path.read_text().splitlines()
    filled = (line + value for line, value in zip(lines, values, strict=True))
    path.write_text("\n".join([head, *filled]) + "\n")
    (run.evaluation / "facts.json").write_text('{"lpips": "measured"}')


def test_lpips_in_the_summary_by_hand(composed: Params, tmp_path: Path, monkeypatch: Any) -> None:
    two = dataclasses.replace(composed, seeds=(0, 1))
    test_report.enter(tmp_path, monkeypatch)
    test_report.make_workspace(two)
    # mean 0.3, deviations -0.2, 0, 0.2, 0; scene means 0.2, 0.5, 0.3
    for run in test_report.runs(two):
        write_lpips(run, ("0.1", "0.3", "0.5", "0.3"))
    # 0.2 less; over the seeds 0.2 +- 0.2 / sqrt(2)
    other = Run(TASK, "noise_space", 1)
    test_report.write_scores(other, ADAPTED_PSNR)
    write_lpips(other, ("0.0", "0.1", "0.2", "0.1"))
    rows = test_report.summary(two)
    assert [row["lpips"] for row in rows] == [0.3, 0.3, 0.3, 0.3, 0.1]
    first, second = rows[-2:]
    assert (first["lpips_low"], first["lpips_high"]) == (0.2, 0.5)
    assert (first["lpips_std_images"], second["lpips_std_images"]) == (0.163299, 0.08165)
    for row in (first, second):
        assert (row["lpips_mean_seeds"], row["lpips_std_seeds"]) == (0.2, 0.141421)
        assert row["lpips_missing"] is None


def test_lpips_says_in_words_why_it_is_missing(params: Params) -> None:
    for run in test_report.runs(params):
        (run.evaluation / "facts.json").write_text('{"lpips": "x.pth was not found"}')
    write_report(params, OUT)
    for name in ("report.md", "report.html"):
        text = (OUT / name).read_text()
        assert "not measured" in text
        assert "LPIPS was not measured: x.pth was not found." in text
