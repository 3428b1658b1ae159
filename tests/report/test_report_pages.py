"""The pages of the report and their pictures."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.config.compose import compose
from pipeline.config.params import Params
from pipeline.images.store import Record, write_store
from pipeline.report.collect import collect
from pipeline.report.examples.choice import CROP_PIXELS, choose, examples, spread
from pipeline.report.examples.grids import GAP_PIXELS, HEADER_PIXELS, LINE_PIXELS
from pipeline.report.figures.conditions import condition_quality
from pipeline.report.figures.curves import curves
from pipeline.report.page import write_report
from pipeline.report.tables.writing import escape_markdown
from pipeline.runtime.files import write_text
from pipeline.runtime.paths import SIMULATED, Run, task_images
from tests.report import test_report
from tests.report.test_report import (
    DATA_SET,
    DEGRADED_PSNR,
    HEIGHT,
    MEASURED,
    OUT,
    ROOT,
    TASK,
    WIDTH,
    Page,
    enter,
    files,
    flat,
    make_workspace,
    markdown,
    runs,
    summary,
    with_methods,
    write_cost,
    write_images,
    write_model,
    write_restored,
    write_scores,
    write_timings,
)

composed = test_report.composed
params = test_report.params


# Images


@pytest.mark.parametrize(
    ("total", "count", "places"),
    [(7, 3, [0, 3, 6]), (6, 3, [0, 2, 5]), (5, 1, [2]), (4, 2, [0, 3]), (2, 3, [0, 1]),
     (1, 1, [0]), (0, 3, []), (5, 0, [])],
)  # fmt: skip
def test_spread(total: int, count: int, places: list[int]) -> None:
    assert spread(total, count) == places


def test_best_median_and_worst_are_chosen() -> None:
    gains = {"a": 0.1, "b": -2.0, "c": 3.0, "d": 0.5, "e": 0.2}
    assert choose(gains, 3) == ["c", "e", "b"]
    assert choose(gains, 1) == ["e"]
    assert choose({"a": 1.0, "b": 1.0, "c": 1.0}, 3) == ["a", "b", "c"]


def test_the_images_shown_are_those_chosen(params: Params) -> None:
    # gains over vanilla: 1, 3, -1, 2
    shown = examples(params, collect(params)[0].data_sets[0])
    assert [row.image for row in shown.rows] == ["attic_2", "cellar_1", "beach_1"]
    titles = ["largest gain, +3.00 dB", "median gain, +2.00 dB", "smallest gain, -1.00 dB"]
    assert [row.title for row in shown.rows] == titles
    assert "gain in PSNR of noise_space over vanilla, among the 4 of 4 images" in shown.rule
    panels = shown.rows[0].panels
    assert [panel.title for panel in panels] == [
        "degraded input", "vanilla", "noise_space", "clean",
    ]  # fmt: skip
    assert [panel.psnr for panel in panels] == [22.0, 22.0, 25.0, None]
    assert [int(panel.pixels[0, 0, 0]) for panel in panels] == [1, 101, 121, 201]
    # 24 pixels wide: enlarged by 8, the largest whole factor that fits
    assert panels[0].pixels.shape == (HEIGHT * 8, WIDTH * 8, 3)
    assert "attic_2 (largest gain, +3.00 dB): degraded input 22.00 dB" in markdown(params)
    with Image.open(OUT / "figures" / "images_denoise.png") as opened:
        grid = np.asarray(opened.convert("RGB"))
    for column, panel in enumerate(panels):
        x = GAP_PIXELS + column * (CROP_PIXELS + GAP_PIXELS)
        y = HEADER_PIXELS + LINE_PIXELS + (CROP_PIXELS - HEIGHT * 8) // 2
        np.testing.assert_array_equal(grid[y : y + HEIGHT * 8, x : x + WIDTH * 8], panel.pixels)


def test_titles_say_that_not_all_images_were_stored(params: Params) -> None:
    # gains over vanilla: 1, 3, -1, 2, of which the largest and the smallest were not stored
    write_restored(Run(TASK, "vanilla", 0), lambda image: flat(1), ("attic_1", "cellar_1"))
    shown = examples(params, collect(params)[0].data_sets[0])
    assert [row.title for row in shown.rows] == [
        "largest gain of the 2 stored, +2.00 dB", "smallest gain of the 2 stored, +1.00 dB",
    ]  # fmt: skip


def test_a_large_image_is_cropped_in_the_middle(params: Params) -> None:
    ramp = np.arange(300, dtype=np.uint16)[:, None, None].repeat(200, 1).repeat(3, 2)
    pixels = (ramp % 256).astype(np.uint8)
    large = Record("attic_1", "attic", DATA_SET, 300, 200, degraded=lambda: pixels)
    write_store(task_images(TASK) / "test.h5", [large])
    restored = dataclasses.replace(large, degraded=None, restored=lambda: pixels)
    for method in params.methods:
        write_store(Run(TASK, method, 0).evaluation / "restored.h5", [restored])
    panel = examples(params, collect(params)[0].data_sets[0]).rows[0].panels[0]
    assert panel.pixels.shape == (CROP_PIXELS, CROP_PIXELS, 3)
    assert panel.pixels[0, 0, 0] == (300 - CROP_PIXELS) // 2


def test_without_another_method_the_gain_is_over_the_input(params: Params) -> None:
    alone = dataclasses.replace(params, methods={"vanilla": params.methods["vanilla"]})
    text = markdown(alone)
    assert "gain in PSNR of vanilla over degraded input" in text
    assert "PSNR minus" not in text


def test_a_data_set_without_truth_is_shown_unscored(params: Params) -> None:
    write_images(clean=False)
    for run in runs(params):
        write_scores(run, (None,) * 4)
    assert summary(params) == []
    text = (OUT / "report.md").read_text()
    assert "Images of this data set: 4, none with a clean counterpart." in text
    assert "| degraded input" not in text and "PSNR (dB)" not in text
    assert "in the order of the test set" in text
    assert (OUT / "figures" / "images_denoise.png").is_file()
    assert "images_denoise.png" in text
    assert "NIQE was not measured: older evaluation.\n" in text
    assert not list((OUT / "tables").glob("niqe*"))


def test_without_truth_niqe_stands_in_the_report(params: Params) -> None:
    write_images(clean=False)
    for run, rise in zip(runs(params), (3.0, 0.0, 1.5), strict=True):
        write_scores(run, (None,) * 4)
        path = run.evaluation / "per_image.csv"
        # of the last image one restorer has none
        last = "" if rise else "9.0"
        values = [5 + rise, 6 + rise, 7 + rise, last]
        head, *lines = path.read_text().splitlines()
        lines = [f"{line},{value}" for line, value in zip(lines, values, strict=True)]
        write_text(path, "\n".join([f"{head},niqe", *lines]) + "\n")
    assert summary(params) == []
    for name in ("report.md", "report.html"):
        text = (OUT / name).read_text()
        assert "It knows no truth: texture that a network made up scores as well" in text
        assert "not measured" not in text
    table = (OUT / "tables" / "niqe_denoise.md").read_text().splitlines()
    assert "3 images without truth, NIQE" in table[0]
    assert table[-3:] == [
        "| degraded input | 9.00 |",
        "| vanilla | 6.00 |",
        "| noise_space | 7.50 |",
    ]


def test_each_data_set_has_its_own_tables(params: Params) -> None:
    for run in runs(params):
        path = run.evaluation / "per_image.csv"
        lines = path.read_text().splitlines()
        lines[3:] = [
            line.replace(f'"{DATA_SET}"', "polyu").replace(",here,", ",camera,")
            for line in lines[3:]
        ]
        write_text(path, "\n".join(lines) + "\n")
    rows = summary(params)
    assert [row["data_set"] for row in rows] == [DATA_SET] * 3 + ["polyu"] * 3
    assert [row["simulated"] for row in rows] == [True] * 3 + [False] * 3
    assert [row["psnr"] for row in rows if row["method"] == "degraded"] == [21.0, 25.0]
    text = (OUT / "report.md").read_text()
    assert f"### {DATA_SET}\n" in text and "### polyu\n" in text
    assert f"| Restorer | {DATA_SET} | polyu |\n| --- | ---: | ---: |\n" in text
    assert "| degraded input | 21.00 | 25.00 |\n" in text
    # adapted: (22 + 25) / 2 and (25 + 29) / 2
    assert "| noise_space | **23.50** | **27.00** |\n" in text


# Pages


def test_html_is_whole_and_needs_no_network(params: Params) -> None:
    write_report(params, OUT)
    for name in ("report.html", "report_with_cost.html"):
        text = (OUT / name).read_text()
        assert not re.search(r"(src|href)=.https?:|@import|url\(", text)
        page = Page(text)
        assert page.named("script") == [{}] and not page.named("link")
        assert page.named("html")[0]["lang"] == "en"
    page = Page((OUT / "report.html").read_text())
    images = page.named("img")
    # three pictures; of three images and three failures the input, two restored, the clean one and
    # two differences
    assert len(images) == 3 + (3 + 3) * 6
    for image in images:
        assert image["alt"]
        assert (image["src"] or "").startswith("data:image/webp;base64,")
    anchors = {element.get("id") for _, element in page.elements}
    for link in page.named("a"):
        file, _, target = (link["href"] or "").partition("#")
        assert target in anchors, "one file, and the same with cost beside it"
        assert file in ("", "report_with_cost.html")


def test_simulated_data_is_called_so(params: Params) -> None:
    write_report(params, OUT)
    for name in ("report.md", "report.html"):
        text = (OUT / name).read_text()
        assert "Simulated real data." in text
        assert "No photograph of SIDD, SPA-Data, RealBlur" in text
    for run in runs(params):
        write_scores(run, DEGRADED_PSNR, data_set="polyu")
    assert "simulated" not in markdown(params).lower()
    for run in runs(params):
        write_scores(run, DEGRADED_PSNR, data_set=f"polyu, {SIMULATED}", domain="synthetic")
    assert "Simulated real data." not in markdown(params), "synthetic images are not called real"


def test_curves_tell_how_often_swapping_was_noticed(params: Params) -> None:
    text = markdown(params)
    # d_neg - d_pos: -0.1, then 0.2; the pretraining has neither
    assert "noise_space: d_neg above d_pos in 1 of 2 logged intervals." in text
    assert "Last restoration loss: vanilla 0.1000; noise_space 0.1000." in text
    assert (OUT / "figures" / "curves_denoise.png").is_file()


def test_curves_tell_how_hard_the_diffusion_loss_pulls(params: Params) -> None:
    # last interval: 1 / 4, not the 0.1 / 2 before it
    picture = curves(params, collect(params)[0])
    assert picture is not None
    assert "The first over the second in the last interval: noise_space 0.25." in picture.caption
    # three panels and the legend, in two rows
    assert (picture.width, picture.height) == (920, 680)
    alone = dataclasses.replace(params, methods={"vanilla": params.methods["vanilla"]})
    plain = curves(alone, collect(alone)[0])
    assert plain is not None
    assert (plain.width, plain.height) == (920, 340)
    assert "radient" not in plain.caption


def test_the_whole_loss_and_the_contrast_are_drawn(params: Params) -> None:
    plain = curves(params, collect(params)[0])
    log = Run(TASK, "noise_space", 0).training / "log.csv"
    first, *rows = log.read_text().splitlines()
    lines = [f"{first},total,contrast", *(f"{row},0.6,{0.1 * n}" for n, row in enumerate(rows))]
    write_text(log, "\n".join(lines) + "\n")
    picture = curves(params, collect(params)[0])
    assert plain is not None and picture is not None
    assert "L_con" in picture.caption and "L_con" not in plain.caption
    # a fourth panel: the legend opens a third row
    assert (plain.height, picture.height) == (680, 1020)


def test_timings_are_drawn_on_the_page_with_cost(params: Params) -> None:
    write_report(params, OUT)
    assert "Time of a step" not in (OUT / "report_with_cost.html").read_text()
    before = (OUT / "report.html").read_bytes()
    write_timings(Run(TASK, "vanilla", 0), (0.9, 0.8), (0.2, 0.05))
    write_report(params, OUT)
    assert (OUT / "report.html").read_bytes() == before
    text = (OUT / "report_with_cost.html").read_text()
    page = Page(text)
    (picture,) = (i for i in page.named("img") if "Time of a step" in (i["alt"] or ""))
    assert picture["alt"] == "Time of a step, task denoise. Last waiting for data: vanilla 5 %."
    assert {"href": "report.html"} in page.named("a")
    assert '<a href="report_with_cost.html#cost">' in (OUT / "report.html").read_text()


@pytest.mark.filterwarnings("error")
def test_a_diffusion_loss_without_weight_is_drawn(params: Params) -> None:
    log = Run(TASK, "noise_space", 0).training / "log.csv"
    lines = ["step,restoration,positive_error,restoration_gradient,diffusion_gradient",
             "2,0.4,,,", "4,0.2,0.9,2.0,0.0"]  # fmt: skip
    write_text(log, "\n".join(lines) + "\n")
    picture = curves(params, collect(params)[0])
    assert picture is not None and "in the last interval: noise_space 0." in picture.caption


def test_error_against_the_quality_of_the_conditions_by_hand(params: Params) -> None:
    picture = condition_quality(params, collect(params)[0])
    assert picture is not None
    assert "from each sigma to the next it rises in 1 of 1 training." in picture.caption
    assert "Error at sigma 80 over that at 0: noise_space 2.50." in picture.caption
    assert "seed" not in picture.caption
    assert (
        "noise_space 0.2000 at sigma 0, 0.5000 at 80, 0.2500 with restored images." in picture.alt
    )
    text = markdown(params)
    assert "noise_space 2.50." in text and "(figures/conditions_denoise.png)" in text
    assert (OUT / "figures" / "conditions_denoise.png").read_bytes() == picture.png


def test_error_against_the_quality_over_seeds(
    composed: Params, tmp_path: Path, monkeypatch: Any
) -> None:
    two = dataclasses.replace(composed, seeds=(0, 1))
    enter(tmp_path, monkeypatch)
    make_workspace(two)
    # falls once; last over first 1.5, and 2.5 of the other seed
    falling = {**MEASURED, "error": [0.2, 0.1, 0.3], "error_restored": 0.35}
    write_model(two, Run(TASK, "noise_space", 1), measured=falling)
    picture = condition_quality(two, collect(two)[0])
    assert picture is not None
    assert "it rises in 1 of 2 trainings." in picture.caption
    assert "over that at 0, mean over the seeds: noise_space 2.00." in picture.caption
    assert "Mean over 2 seeds, one faint line a seed." in picture.caption
    assert "0.2000 at sigma 0, 0.4000 at 80, 0.3000 with restored images" in picture.alt


@pytest.mark.parametrize("facts", [{}, {"measured": {}}], ids=["missing", "empty"])
def test_without_measurements_there_is_no_such_picture(params: Params, facts: Any) -> None:
    write_model(params, Run(TASK, "noise_space", 0), **facts)
    assert "conditions_denoise" not in markdown(params)
    assert not (OUT / "figures" / "conditions_denoise.png").exists()


@pytest.mark.filterwarnings("error")
def test_many_methods_have_their_place(params: Params) -> None:
    wider = with_methods(params, 15)
    # of other sizes: a logarithmic axis
    small = {**MEASURED, "error": [0.002, 0.003, 0.005]}
    write_model(wider, Run(TASK, "variant_14", 0), measured=small)
    text = markdown(wider)
    # three tables of fifteen; the last but itself, in PSNR and SSIM
    assert text.count("\n| variant_") == 3 * 15 + 14 * 2
    assert "it rises in 15 of 15 trainings." in text
    picture = curves(wider, collect(wider)[0])
    assert picture is not None and (picture.width, picture.height) == (920, 680)


def test_names_are_escaped(composed: Params, tmp_path: Path, monkeypatch: Any) -> None:
    hostile = 'a|b<i>$x^{$ & *c* "d"'
    methods = dict(zip(("vanilla", hostile), composed.methods.values(), strict=True))
    renamed = dataclasses.replace(composed, methods=methods)
    enter(tmp_path, monkeypatch)
    make_workspace(renamed)
    data_set = "<script>alert(1)</script> | _odd_"
    write_images(clean=True, data_set=data_set)
    for run in runs(renamed):
        write_scores(run, DEGRADED_PSNR, data_set=data_set)
    text = markdown(renamed)
    page = Page((OUT / "report.html").read_text())
    assert len(page.named("script")) == 1 and not page.named("i")
    assert "&lt;script&gt;" in (OUT / "report.html").read_text()
    row = next(line for line in text.splitlines() if line.startswith("| a"))
    assert len(re.findall(r"(?<!\\)\|", row)) == 11, "as many cells as the table has columns"
    assert r"\<script\>alert(1)\</script\> \| \_odd\_" in text


def test_escape_markdown() -> None:
    assert escape_markdown("noise_space, 1 < 2") == r"noise_space, 1 \< 2"
    assert escape_markdown("_x_ `y` [z]\n# t") == r"\_x\_ \`y\` \[z\] # t"


def test_two_renders_have_the_same_bytes(
    composed: Params, tmp_path: Path, monkeypatch: Any
) -> None:
    made = []
    for name, seconds in (("first", 1.0), ("second", 2.0)):
        enter(tmp_path / name, monkeypatch)
        make_workspace(composed)
        write_cost("train@denoise-vanilla-0", seconds, 100)
        write_report(composed, OUT)
        made.append(files(OUT))
    first, second = made
    different = {name for name in first if first[name] != second[name]}
    assert set(first) == set(second)
    assert different == {"cost.json", "cost.md", "report_with_cost.html"}
    pictures = {f"figures/{name}_denoise.png" for name in ("curves", "conditions", "images")}
    assert pictures < set(first)


def test_the_stage_needs_no_torch(params: Params) -> None:
    compose(["preset=tiny", "tasks=[denoise]"], Path("params.yaml"))
    code = (
        "import sys; from stages.report import main; from pipeline.config.read import read_params;"
        "main(read_params()); assert 'torch' not in sys.modules, 'torch was imported'"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    assert Path("reports/report.html").is_file()
