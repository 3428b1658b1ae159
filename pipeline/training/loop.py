"""Train one restorer: read from top to bottom."""

import copy
import json
import math
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pipeline.adaptation import build_adaptation
from pipeline.batches import JointCrops, batches
from pipeline.config.data import SyntheticDomain
from pipeline.config.learning import Method, Restorer, Train
from pipeline.device import autocast, choose_precision, describe_device, prepare_torch
from pipeline.files import sha256_of, write_text
from pipeline.models.build import build_restorer, parameter_count
from pipeline.models.weights import save_tensors
from pipeline.paths import LOG_FILE, MODEL_FILE, STATE_FILE
from pipeline.randomness import seeded_torch, stable_seed, torch_generator
from pipeline.store import ImageStore
from pipeline.training.log import ProgressDisplay, TrainingLog, require_finite
from pipeline.training.state import Checkpoint, TrainingState, fingerprint

WITHOUT_EFFECT = ("workers", "checkpoint_every_steps")
"""Training settings that change no result: a run may go on with others."""
RETRY_STATUS = 75
"""Exit status after a signal (EX_TEMPFAIL): the same command goes on from the checkpoint."""


@dataclass(frozen=True)
class Job:
    """One training: what to train, on what, up to which step, and where the results go."""

    title: str
    task_name: str
    method_name: str
    synthetic: SyntheticDomain
    method: Method
    restorer: Restorer
    train: Train
    seed: int
    images: Path
    start_from: Path | None
    last_step: int
    keeps: Literal["state", "model"]
    folder: Path


def train(job: Job) -> None:
    """Run a training to its last step, going on from its checkpoint if it was stopped before.

    Writes to ``job.folder`` either the whole state, for others to go on from, or the averaged
    restorer with its configuration inside and the log.

    Raises:
        UserError: an image is smaller than the patch, the loss is not finite, the same training
            is under way elsewhere.
    """
    settings = job.train
    prepare_torch(settings.threads)
    precision = choose_precision(settings.precision)
    fabric = Fabric(accelerator="auto", devices=1)

    # Data: crops of both domains. Sizes are checked here, before any work.
    synthetic, real = (ImageStore(job.images / f"{name}.h5") for name in ("synthetic", "real"))
    crops = JointCrops(synthetic, real, job.synthetic, settings.patch, job.seed)

    # Networks: the restorer's first weights depend on the seed alone, so all methods share them.
    with seeded_torch(job.seed, "restorer weights"):
        restorer = build_restorer(job.restorer)
    with seeded_torch(job.seed, "other weights"):
        adaptation = build_adaptation(restorer, job.method)
    adaptation.to(device=fabric.device, memory_format=torch.channels_last)
    average_step = get_ema_multi_avg_fn(settings.average_decay)  # type: ignore[no-untyped-call]
    average = AveragedModel(copy.deepcopy(restorer), multi_avg_fn=average_step)
    rates = {"restorer": settings.learning_rate, **adaptation.extra_learning_rates()}
    optimizers: dict[str, torch.optim.Optimizer] = {
        name: torch.optim.Adam(
            getattr(adaptation, name).parameters(), rate, betas=settings.adam_betas, fused=True
        )
        for name, rate in rates.items()
    }
    state = TrainingState(adaptation, average, optimizers, TrainingLog())

    # Start: from the shared pretraining or afresh; a checkpoint of this very training goes first.
    digests = {"synthetic": synthetic.digest, "real": real.digest}
    if job.start_from is not None:
        state.load_restorer(job.start_from)
        digests["start"] = sha256_of(job.start_from)
    first_step = state.step
    facts = _facts(job, precision, describe_device(fabric.device))
    name = fingerprint({**facts, "data": digests, "last_step": job.last_step})
    module = fabric.setup_module(adaptation)
    adaptation.train()

    with (
        Checkpoint(name) as checkpoint,
        _stop_signals() as stop,
        ProgressDisplay(job.title, job.last_step) as display,
    ):
        if checkpoint.path.is_file():
            state.load(checkpoint.path)
            display.say(f"going on from step {state.step}")
        for batch in batches(crops, settings, state.step, job.last_step):
            step = state.step + 1
            factor = _learning_rate_factor(settings, step)
            for name, optimizer in optimizers.items():
                optimizer.param_groups[0]["lr"] = rates[name] * factor

            # Loss: noise and diffusion steps come from (seed, step), dropout likewise.
            torch.manual_seed(stable_seed(job.seed, "dropout", step))
            draws = adaptation.draw(torch_generator(job.seed, "draws", step), batch.clean)
            if draws is not None:
                draws = draws.to(fabric.device)
            with autocast(fabric.device, precision):
                terms = module(batch.to(fabric.device), draws, step - first_step)
            require_finite(terms, step, checkpoint.path)

            # Update: all networks at once, then the moving average of the restorer.
            for optimizer in optimizers.values():
                optimizer.zero_grad(set_to_none=True)
            fabric.backward(terms["total"])
            for optimizer in optimizers.values():
                optimizer.step()
            average.update_parameters(restorer)
            state.step = step

            # Bookkeeping: a log row at each interval, a checkpoint now and then or when told to.
            last = step == job.last_step
            state.log.add(terms)
            if step == settings.steps or step % settings.log_every_steps == 0:
                rate = settings.learning_rate * factor
                state.log.close_interval(step, step * settings.batch, rate)
            display.update(step, state.log)
            if not last and (stop.requested or step % settings.checkpoint_every_steps == 0):
                state.save(checkpoint.path)
            if not last and stop.requested:
                display.say(f"stopped, saved at step {step}")
                sys.exit(RETRY_STATUS)

        if job.keeps == "state":
            state.save(job.folder / STATE_FILE)
        else:
            model = {**facts, "steps": state.step, "parameters": parameter_count(restorer)}
            save_tensors(job.folder / MODEL_FILE, average.module.state_dict(), model)
            write_text(job.folder / LOG_FILE, state.log.to_csv())
        checkpoint.remove()


def _facts(job: Job, precision: str, device: str) -> dict[str, Any]:
    """Return what decides the result apart from data and code; travels with the model."""
    facts = {
        "task": job.task_name,
        "method": job.method_name,
        "method_settings": asdict(job.method),
        "synthetic": asdict(job.synthetic),
        "restorer": asdict(job.restorer),
        "train": {k: v for k, v in asdict(job.train).items() if k not in WITHOUT_EFFECT},
        "seed": job.seed,
        "precision": precision,
        "device": device,
        "torch": torch.__version__,
    }
    plain: dict[str, Any] = json.loads(json.dumps(facts))
    return plain


def _learning_rate_factor(settings: Train, step: int) -> float:
    after_pretraining = step - 1 - settings.pretrain_steps
    if settings.learning_rate_decay == "none" or after_pretraining <= 0:
        return 1.0
    progress = after_pretraining / (settings.steps - settings.pretrain_steps)
    return (1 + math.cos(math.pi * progress)) / 2


class _Stop:
    """Whether a signal asked the training to stop."""

    requested = False


@contextmanager
def _stop_signals() -> Iterator[_Stop]:
    """Turn SIGTERM, SIGINT and SIGUSR1 (Slurm's warning) into a request to save and stop."""
    stop = _Stop()

    def request(number: int, frame: object) -> None:
        stop.requested = True

    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    before = {number: signal.signal(number, request) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
