"""The demo trained on this machine's GPU: minutes and PSNR, beside the processor's numbers."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from benchmarks.gpu.hours import composed
from benchmarks.gpu.setup import Findings, Row, Setup
from benchmarks.gpu.waiting import in_own_process

TASK, SEED = "denoise", 0
CHECKOUT = Path(__file__).parents[2]


def measure(setup: Setup, before: Findings) -> Iterator[Row]:
    """Yield each stage's seconds, then a method's PSNR of each data set beside the committed."""
    folder = setup.folder / "demo"
    folder.mkdir()
    values = composed([f"preset={'demo' if setup.large else 'tiny'}", f"tasks=[{TASK}]"])
    OmegaConf.save(OmegaConf.create(values), folder / "params.yaml")
    methods = list(values["methods"])
    total = 0.0
    stages: list[tuple[str, list[str]]] = [
        ("images", []), ("pretrain", []), *(("train", [method]) for method in methods),
    ]  # fmt: skip
    for stage, names in stages:
        begun = time.perf_counter()
        in_own_process(_run, stage, names, str(folder), seconds=setup.left())
        total += time.perf_counter() - begun
        yield {"stage": " ".join([stage, *names]), "s": time.perf_counter() - begun}
    yield {"stage": "all", "s": total}
    for method in methods:
        found = in_own_process(_run, "evaluate", [method], str(folder), seconds=setup.left())
        committed = _committed(method)
        for data_set, psnr in found.items():
            yield {"stage": f"{method} on {data_set}", "PSNR": psnr,
                   "PSNR of the processor's run": committed.get(data_set)}  # fmt: skip


def _committed(method: str) -> dict[str, float]:
    path = CHECKOUT / "reports" / "metrics" / TASK / f"{method}-{SEED}.json"
    if not path.is_file():
        return {}
    return {name: row["psnr"] for name, row in json.loads(path.read_text()).items()}


def _run(stage: str, names: list[str], folder: str) -> Any:
    """Do one stage in a folder of its own; the lines are those of ``stages/``."""
    os.chdir(folder)
    from pipeline.config.read import read_params
    from pipeline.training.job import Job

    params = read_params()
    if stage == "images":
        return _images(params)
    if stage == "evaluate":
        return _evaluate(params, names[0])
    from pipeline.training.loop import train

    made = (
        Job.pretraining(params, TASK, SEED)
        if stage == "pretrain"
        else Job.of_method(params, TASK, names[0], SEED)
    )
    return train(made)


def _images(params: Any) -> None:
    from pipeline.config.sources import SPLITS
    from pipeline.datasets.prepare import prepare
    from pipeline.datasets.synthesize import synthesize
    from pipeline.runtime.paths import prepared, raw, task_images
    from pipeline.sources import download

    for name, source in params.sources.items():
        download(source, raw(name))
        prepare(source, raw(name), prepared(name))
    task = params.tasks[TASK]
    sources = {split: prepared(getattr(task.sources, split)) for split in SPLITS}
    unpaired = prepared(task.sources.unpaired)
    unseen = [prepared(name) for name in task.sources.unseen]
    synthesize(task, TASK, sources, unpaired, unseen, task_images(TASK))


def _evaluate(params: Any, method: str) -> dict[str, float]:
    from pipeline.evaluation.evaluate import evaluate
    from pipeline.inference.model import load_model
    from pipeline.runtime.paths import MODEL_FILE, Run, task_images

    run = Run(TASK, method, SEED)
    model = load_model(run.training / MODEL_FILE, params.evaluate)
    protocol = params.tasks[TASK].protocol
    test, clean = (task_images(TASK) / name for name in ("test.h5", "synthetic.h5"))
    evaluate(model.restore_equal, test, clean, protocol, params.evaluate, run, model.facts())
    rows = json.loads(run.metrics.read_text())
    return {name: row["psnr"] for name, row in rows.items()}
