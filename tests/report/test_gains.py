"""What is gained of what there is to gain, the report's first lines, crops over the updates."""

import dataclasses

import numpy as np
from safetensors.numpy import save_file

from pipeline.config.params import Params
from pipeline.images.store import Record, write_store
from pipeline.report.collect import collect
from pipeline.report.figures.progress import progress
from pipeline.report.findings import findings
from pipeline.report.page import write_report
from pipeline.report.tables.differences import all_tests
from pipeline.report.tables.gains import gain_table
from pipeline.runtime.paths import DEGRADED, SNAPSHOTS_FILE, Run, task_images
from tests.report import test_report
from tests.report.test_report import OUT, TASK
from tests.report.test_report_files import with_bound
from tests.report.test_report_tables import texts

composed = test_report.composed
params = test_report.params


def test_gain_over_headroom_by_hand(params: Params) -> None:
    wider = with_bound(params)
    data_set = collect(wider)[0].data_sets[0]
    # noise_space: (1 + 3 - 1 + 2) / 4; bound: 40, 40, 40, 30 minus 21, 22, 26, 27
    (row,) = texts(gain_table(wider, data_set))
    assert row[:4] == ["noise_space", "+1.25", "+13.50", f"{1.25 / 13.5:.2f}"]
    low, high = map(float, row[4].split(" to "))
    # scenes gain (1 + 3) / 37, -1 / 14 and 2 / 3 of their headroom: no resample lies outside
    assert -1 / 14 - 0.005 <= low < 1.25 / 13.5 < high <= 2 / 3 + 0.005
    assert gain_table(params, data_set) is None, "no bound"
    assert gain_table(wider, dataclasses.replace(data_set, seen=False)) is None, "of elsewhere"


def test_the_first_lines_say_gain_cost_and_harm(params: Params) -> None:
    wider = with_bound(params)
    for run in test_report.runs(wider):
        own = (run.evaluation / "per_image.csv").read_text()
        psnr = {"vanilla": 30.0, "noise_space": 29.5}.get(run.method, 25.0)
        test_report.write_scores(run, (psnr,) * 4, data_set="synthetic", domain="synthetic")
        other = (run.evaluation / "per_image.csv").read_text().splitlines()[1:]
        (run.evaluation / "per_image.csv").write_text("\n".join([own.rstrip(), *other]) + "\n")
    results = collect(wider)
    gain, cost = findings(wider, results, all_tests(wider, results))
    assert gain == (
        "denoise: on tiny photographs, simulated real, noise_space restores 1.25 dB better than"
        " vanilla after as many updates (25.25 against 24.00 dB, 3 scenes); the difference may be"
        " chance. That is 9% of what training on real pairs gains."
    )
    assert cost == (
        "denoise: on synthetic test images (synthetic), noise_space scores 0.50 dB worse than"
        " vanilla."
    )
    write_report(wider, OUT)
    assert "restores 1.25 dB better than" in (OUT / "report.html").read_text().split("<nav")[0]
    test_report.write_scores(Run(TASK, DEGRADED), (24.5,) * 4)
    for run in test_report.runs(wider):
        if run.method != DEGRADED:
            lines = (run.evaluation / "per_image.csv").read_text().splitlines()[:5]
            (run.evaluation / "per_image.csv").write_text("\n".join(lines) + "\n")
    results = collect(wider)
    harm = findings(wider, results, all_tests(wider, results))[-1]
    assert harm == "denoise: not better than the degraded input (24.50 dB): vanilla 24.00 dB."
    test_report.write_scores(Run(TASK, "bound", 0), (25.0,) * 4)
    results = collect(wider)
    assert findings(wider, results, all_tests(wider, results))[-1] == (
        f"{harm} Even bound, trained on real pairs, scores 0.50 dB better than its"
        " input, so this restorer learns little of this task in so many updates."
    )


def test_crops_over_the_updates_are_shown(params: Params) -> None:
    task = collect(params)[0]
    assert progress(params, task) is None, "no training kept any"
    pixels = test_report.flat(7)
    store = [Record("real a", "a", "real", *pixels.shape[:2], lambda: pixels, lambda: pixels)]
    write_store(task_images(TASK) / "validation.h5", store)
    for method in ("vanilla", "noise_space"):
        crops = {f"real.{step}": np.full((3, 8, 8), step, np.uint8) for step in (8, 2)}
        save_file(crops, Run(TASK, method, 0).training / SNAPSHOTS_FILE)
    shown = progress(params, task)
    assert shown is not None and shown.name == "progress_denoise.png"
    assert "restored at updates 2, 8 of vanilla and noise_space" in shown.alt
    assert progress(params, task) == shown, "same bytes"
