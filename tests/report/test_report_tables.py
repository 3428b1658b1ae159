"""Tables of the report and their files: by hand, on the workspace of test_report."""

import csv
import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.methods import (
    ApBsnSettings,
)
from pipeline.config.params import Params
from pipeline.report.collect import collect
from pipeline.report.examples.choice import examples
from pipeline.report.examples.failures import failure_examples, failures_table, harm_table
from pipeline.report.examples.viewer import comparisons
from pipeline.report.notes import notes
from pipeline.report.page import write_report
from pipeline.report.results import DataSet, TaskResults
from pipeline.report.tables.differences import all_tests, difference_table, main_method_table
from pipeline.report.tables.headline import (
    ablation_table,
    data_sets_table,
    headline_table,
    published_table,
)
from pipeline.report.tables.published import of_task, published
from pipeline.report.tables.scores import Cell, Table
from pipeline.runtime.paths import Run
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
