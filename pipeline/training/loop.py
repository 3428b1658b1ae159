"""Train one restorer: read from top to bottom."""

import math
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from pipeline.config.running import Train
from pipeline.datasets.batches import TRAINING_SIGNALS, Batch, batches
from pipeline.device import autocast
from pipeline.methods.method import Draws, Progress
from pipeline.models.build import giga_macs, parameter_count
from pipeline.models.weights import save_tensors
from pipeline.randomness import stable_seed, torch_generator
from pipeline.runtime.checkpoints import Checkpoint
from pipeline.runtime.files import write_text
from pipeline.runtime.paths import LOG_FILE, MODEL_FILE, SNAPSHOTS_FILE, STATE_FILE
from pipeline.training.job import Job
from pipeline.training.log import Stopwatch, TrainingDisplay, require_finite
from pipeline.training.lost import lost_processes
from pipeline.training.memory import memory_errors
from pipeline.training.processes import (
    any_process,
    mean_terms,
    require_same_step,
    squared_norms,
)
from pipeline.training.setup import Training, set_up
from pipeline.training.validation import snapshot_steps

RETRY_STATUS = 75
"""Exit status after a signal (EX_TEMPFAIL): the same command goes on from the checkpoint."""
MEASURED_IMAGES = 8
"""How many training images the method's measurements at the end use."""


def train(job: Job) -> None:
    """Run a training to its last step, going on from its checkpoint if it was stopped before.

    Writes what ``job.keeps`` names, and the log as it grows; durations to ``job.timings``.

    Raises:
        UserError: an image is smaller than the patch, the loss is not finite, memory does not
            suffice, the same training is under way elsewhere, there are too few GPUs.
    """
    training = set_up(job)
    fabric, state = training.fabric, training.state
    with (
        Checkpoint(training.name, job.folder, training.leads) as checkpoint,
        memory_errors(job.train, checkpoint.path),
        lost_processes(),
        _stop_signals() as stop,
        TrainingDisplay(job, training.leads) as display,
        ExitStack() as opened,
    ):
        display.say(f"on {training.facts['device']}, {training.precision}")
        fabric.barrier()  # nobody reads before the leader holds the folder
        if checkpoint.path.is_file():
            state.load(checkpoint.path)
            display.go_on(state.step)
        require_same_step(fabric, state.step)
        given = batches(training.crops, training.share, state.step, job.last_step)
        incoming = opened.enter_context(closing(given))
        for step in range(state.step + 1, job.last_step + 1):
            row_ends = step == job.train.steps or step % job.train.log_every_steps == 0
            factor = _learning_rate_factor(job.train, step)

            terms = _loss_and_gradients(training, step, incoming, display.stopwatch, row_ends)
            require_finite(terms, step, checkpoint.path)
            update_networks(training, factor)
            state.step = step

            # Bookkeeping: a log row at each interval, a checkpoint now and then or when told to.
            state.log.add(terms)
            if row_ends:
                _close_row(training, step, factor)
            display.step_done(step, state.log, row_ends)
            stops = any_process(fabric, stop.requested)
            due = stops or step % job.train.checkpoint_every_steps == 0
            if due and training.leads and step < job.last_step:
                state.require_finite(checkpoint.path)
                checkpoint.save(state.save)
            if stops and step < job.last_step:
                fabric.barrier()
                display.say(f"stopped, saved at step {step}")
                # the leader's status counts; a follower's would make the launcher kill the leader
                sys.exit(RETRY_STATUS if training.leads else 0)

        if training.leads:
            state.require_finite(checkpoint.path)
            checkpoint.save(state.save)
            _save_result(training)
            checkpoint.finish(job.folder / (STATE_FILE if job.keeps == "state" else MODEL_FILE))
        fabric.barrier()


def _loss_and_gradients(
    training: Training, step: int, incoming: Iterator[Batch], stopwatch: Stopwatch, row_ends: bool
) -> dict[str, float]:
    """Return the terms of the loss, and leave its gradients: share by share.

    The draws of a step are made for the whole batch from (seed, step), so that an image's noise
    does not depend on who takes it.
    """
    settings, fabric, method = training.job.train, training.fabric, training.method
    for optimizer in training.optimizers.values():
        optimizer.zero_grad(set_to_none=True)
    progress = progress_at(training, step, row_ends)
    draws = draws_at(training, step)
    shares: list[dict[str, Tensor]] = []
    for number in range(settings.accumulate):
        with stopwatch.waiting():
            batch = next(incoming)
        place = training.share.place(number)
        own = draws if draws is None else draws.part(place).to(fabric.device)
        torch.manual_seed(stable_seed(training.job.seed, "dropout", step, place.start))
        last_share = number == settings.accumulate - 1
        with fabric.no_backward_sync(training.module, enabled=not last_share):
            with autocast(fabric.device, training.precision):
                moved = batch.to(fabric.device, training.job.image_range)
                terms = training.module(moved, own, progress)
            # divided, so that the sum over shares is the gradient of their mean
            fabric.backward(terms["total"] / settings.accumulate)
        shares.append({**terms, **squared_norms(method.gradient_norms)})
    return mean_terms(fabric, shares, norms=method.gradient_norms)


def draws_at(training: Training, step: int) -> Draws | None:
    """Return the random numbers of a step, made where ``train.draws_on`` says."""
    settings = training.job.train
    there = str(training.fabric.device) if settings.draws_on == "device" else "cpu"
    generator = torch_generator(training.job.seed, "draws", step, device=there)
    with torch.device(there):
        return training.method.draw(generator, (settings.batch, 3, settings.patch, settings.patch))


def update_networks(training: Training, factor: float) -> None:
    """Update all networks at once, then the moving average of the restorer."""
    for name, optimizer in training.optimizers.items():
        optimizer.param_groups[0]["lr"] = training.rates[name] * factor
        if (limit := training.job.train.clip_norm) is not None:
            clip_grad_norm_(optimizer.param_groups[0]["params"], limit)
        optimizer.step()
    training.state.average.update()


def _close_row(training: Training, step: int, factor: float) -> None:
    """Append a row to the log, with the scores of the validation where it is due."""
    job, state = training.job, training.state
    scores: dict[str, float] = {}
    every = job.train.validate_every_steps
    if training.leads and (step == job.last_step or step % every == 0):
        restorer = state.average.module
        scores, restored = training.validation(restorer, training.fabric.device, training.precision)
        if step in snapshot_steps(training.first_step, job.last_step, every):
            state.keep_snapshots(restored)
    rate = training.rates["restorer"] * factor
    state.log.close_interval(step, step * job.train.batch, rate, scores)


def progress_at(training: Training, step: int, logged: bool) -> Progress:
    """Return how far the method is at a step; shared pretraining does not count."""
    done = step - training.first_step
    return Progress(
        step=done,
        epoch=1 + (done - 1) * training.job.train.batch // len(training.crops.synthetic),
        fraction=done / (training.job.last_step - training.first_step),
        logged=logged,
    )


def _save_result(training: Training) -> None:
    """Write the state, or the averaged restorer with its configuration inside, log and crops."""
    job, state = training.job, training.state
    if job.keeps == "state":
        state.save(job.folder / STATE_FILE)
        return
    restorer = state.average.module
    own = parameter_count(restorer)
    model = {
        **training.facts,
        "steps": state.step,
        "parameters": own,
        "giga_macs_128": giga_macs(restorer),
        "extra_parameters": parameter_count(training.method) - own,
        "measured": _measure(training),
    }
    save_tensors(job.folder / MODEL_FILE, restorer.state_dict(), model)
    save_tensors(job.folder / SNAPSHOTS_FILE, state.snapshots, {})
    write_text(job.folder / LOG_FILE, state.log.to_csv())


def _measure(training: Training) -> dict[str, Any]:
    """Return the method's own measurements on the first images, without dropout."""
    crops, job, device = training.crops, training.job, training.fabric.device
    samples = [crops[number] for number in range(min(MEASURED_IMAGES, job.train.batch))]
    batch = crops.batch([torch.stack(role) for role in zip(*samples, strict=True)])
    black, white = job.image_range
    training.method.eval()
    with torch.inference_mode(), autocast(device, training.precision):
        generator = torch_generator(job.seed, "measure")
        moved = batch.to(device, job.image_range)
        return training.method.measure(moved, generator, white - black)


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
    """Turn signals into a request to save and stop."""
    stop = _Stop()

    def request(number: int, frame: object) -> None:
        stop.requested = True

    before = {number: signal.signal(number, request) for number in TRAINING_SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
