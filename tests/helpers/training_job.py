"""A training small enough for tests, also as a process of its own that can be stopped.

Usage: python -m tests.helpers.training_job JSON

JSON holds images, folder, changes of method, train and job, and when to stop.
"""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.degradations import GaussianNoise
from pipeline.config.denoiser import DenoiserSettings, NoiseSchedule
from pipeline.config.methods import (
    ApBsnSettings,
    CyCadaSettings,
    DannSettings,
    DsnSettings,
    Neighbor2NeighborSettings,
    NoiseSpaceSettings,
    PixelDaSettings,
    TargetSupervisedSettings,
    TrainedMethod,
    VanillaSettings,
)
from pipeline.config.restorers import UNetSettings
from pipeline.config.running import Train
from pipeline.config.tasks import SyntheticDomain
from pipeline.images.store import Record, write_store
from pipeline.runtime.paths import LOG_FILE, MODEL_FILE
from pipeline.training.job import Job
from pipeline.training.loop import train

ROOT = Path(__file__).parents[2]
STEPS = 7
PRETRAIN_STEPS = 3

VANILLA = VanillaSettings(kind="vanilla", start="pretrained")
NOISE_SPACE = NoiseSpaceSettings(
    kind="noise_space",
    start="pretrained",
    weight=1.0,
    ramp=2,
    ramp_unit="steps",
    margin=0.1,
    channel_shuffling=True,
    residual_swapping=True,
    target="paired",
    conditions="both",
    diffusion_step_range=(1, 999),
    denoiser_learning_rate_factor=1.0,
    schedule=NoiseSchedule(1000, 1e-6, 0.01),
    denoiser=DenoiserSettings((8, 16), 1, 1, 8, 4, dropout=0.2),
)
BASELINES: dict[str, TrainedMethod] = {
    "dann": DannSettings("dann", "pretrained", weight=0.1, channels=4, learning_rate_factor=2.0),
    "dsn": DsnSettings(
        "dsn", "pretrained", 0.01, 0.05, 0.025, channels=4, learning_rate_factor=2.0
    ),
    "pixel_da": PixelDaSettings("pixel_da", "pretrained", 0.1, 1.0, 1.0, 4, 1, 2.0, 0.5),
    "cycada": CyCadaSettings("cycada", "pretrained", 1.0, 10.0, 5.0, 0.1, 4, 1, 2.0, 0.5),
    "neighbor2neighbor": Neighbor2NeighborSettings("neighbor2neighbor", "pretrained", weight=2.0),
    "ap_bsn": ApBsnSettings("ap_bsn", "pretrained", stride=2),
    "target_supervised": TargetSupervisedSettings("target_supervised", "pretrained"),
}
RESTORER = UNetSettings(kind="unet", levels=2, channels=4)
TRAIN = Train(
    steps=STEPS,
    pretrain_steps=PRETRAIN_STEPS,
    batch=2,
    accumulate=1,
    devices=1,
    nodes=1,
    patch=16,
    initialization="default",
    learning_rate=1e-3,
    learning_rate_decay="cosine",
    adam_betas=(0.9, 0.999),
    clip_norm=None,
    average_decay=0.9,
    precision="fp32",
    compile=False,
    gradient_checkpointing=False,
    draws_on="cpu",
    threads=1,
    workers=0,
    log_every_steps=2,
    validate_every_steps=2,
    checkpoint_every_steps=2,
    tensorboard=False,
)


def write_images(folder: Path, seed: int = 0) -> None:
    """Write the stores that the job trains on: images of noise."""
    generator = np.random.default_rng(seed)

    def noise() -> np.ndarray:
        return generator.integers(0, 256, (24, 20, 3), dtype=np.uint8)

    clean = [Record(f"c{i}", f"c{i}", "made", 24, 20, clean=noise) for i in range(3)]
    real = [Record(f"r{i}", f"r{i}", "made", 24, 20, degraded=noise) for i in range(2)]
    write_store(folder / "synthetic.h5", clean)
    write_store(folder / "unpaired.h5", [])
    write_store(folder / "real.h5", real)
    truth = [Record(f"r{i}", f"r{i}", "made", 24, 20, clean=noise) for i in range(2)]
    write_store(folder / "truth.h5", truth)
    crops = [Record(d, d, d, 24, 20, noise, noise) for d in ("synthetic", "real")]
    write_store(folder / "validation.h5", crops)


def job(images: Path, folder: Path, method: TrainedMethod, **changes: object) -> Job:
    noise = GaussianNoise(kind="gaussian_noise", sigma_255=(0.0, 75.0))
    made = Job(
        task_name="denoise",
        method_name="any",
        synthetic=SyntheticDomain(degradation=noise, draw="anew", copies=1),
        image_range=(0.0, 1.0),
        learning_rate_factor=1.0,
        method=method,
        restorer=RESTORER,
        train=TRAIN,
        seed=0,
        images=images,
        start_from=None,
        last_step=STEPS,
        keeps="model",
        folder=folder,
        timings=folder.with_suffix(".timings.csv"),
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def results(folder: Path) -> tuple[bytes, bytes]:
    return (folder / MODEL_FILE).read_bytes(), (folder / LOG_FILE).read_bytes()


def stop_at(step: int, number: int, where: str) -> None:
    """Make a signal reach this process at a step, or halfway through its next saving.

    ``where`` may also be ``error``: at the step something fails as it does without memory.
    """
    from pipeline.models import weights
    from pipeline.runtime.progress import ProgressBars

    shown, written = ProgressBars.reach, weights.save_file
    reached = False

    def reach(self: ProgressBars, task: Any, now: float, *rest: Any, **named: Any) -> None:
        nonlocal reached
        shown(self, task, now, *rest, **named)
        reached = now >= step
        if reached and where == "step":
            os.kill(os.getpid(), number)
        if reached and where == "error":
            raise MemoryError("all is used")

    def save_file(tensors: Any, path: Path, metadata: Any) -> None:
        written(tensors, path, metadata)
        if reached and where == "saving":
            with path.open("r+b") as file:
                file.truncate(path.stat().st_size // 2)
            os.kill(os.getpid(), number)

    ProgressBars.reach = reach  # type: ignore[method-assign]
    weights.save_file = save_file  # type: ignore[assignment]


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    changes = given.pop("method", {})
    if isinstance(changes, str):
        method: TrainedMethod = BASELINES[changes]
    else:
        changes["denoiser"] = replace(NOISE_SPACE.denoiser, **changes.get("denoiser", {}))
        method = replace(NOISE_SPACE, **changes)
    settings = replace(TRAIN, **given.pop("train", {}))
    places = [Path(given.pop(name)) for name in ("images", "folder")]
    stop = given.pop("stop", None)
    here = int(os.environ.get("LOCAL_RANK", 0))
    elsewhere = given.pop("checkpoints_of_followers", None)
    if here and elsewhere:
        os.environ["PIPELINE_CHECKPOINTS"] = elsewhere
    if stop is not None and stop.get("rank", here) == here:
        stop_at(stop["step"], signal.Signals[stop["signal"]], stop["where"])
    train(job(*places, method, train=settings, **given))
