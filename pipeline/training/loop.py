"""Train one restorer: read from top to bottom."""

import copy
import json
import math
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pipeline.config.running import Train
from pipeline.datasets.batches import TRAINING_SIGNALS, JointCrops, Share, batches
from pipeline.device import (
    Precision,
    autocast,
    describe_device,
    prepare_torch,
    use_precision,
)
from pipeline.images.store import ImageStore
from pipeline.methods.method import Draws, Method, Progress, build_method
from pipeline.models.build import build_restorer, initialize, parameter_count
from pipeline.models.checkpointing import checkpoint_gradients
from pipeline.models.weights import save_tensors
from pipeline.randomness import seeded_torch, stable_seed, torch_generator
from pipeline.runtime.checkpoints import Checkpoint
from pipeline.runtime.files import sha256_of, write_text
from pipeline.runtime.paths import LOG_FILE, MODEL_FILE, SNAPSHOTS_FILE, STATE_FILE
from pipeline.training.job import Job
from pipeline.training.log import TrainingDisplay, TrainingLog, require_finite
from pipeline.training.lost import lost_processes
from pipeline.training.memory import memory_errors
from pipeline.training.processes import (
    any_process,
    mean_terms,
    require_same_step,
    squared_norms,
    start_processes,
)
from pipeline.training.state import TrainingState, fingerprint
from pipeline.training.validation import Validation, snapshot_steps

WITHOUT_EFFECT = ("workers", "checkpoint_every_steps", "tensorboard")
"""Training settings that change no result: a run may go on with others."""
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
    settings = job.train
    prepare_torch(settings.threads)
    precision = use_precision(settings.precision)
    restorer, method = _networks(job)
    stores = _open_stores(job, method.wants)
    crops = JointCrops(
        stores["synthetic"],
        stores["real"],
        job.synthetic,
        settings.patch,
        job.seed,
        stores.get("unpaired"),
        stores.get("truth"),
    )
    validation = Validation(stores["validation"], job.image_range, job.restorer.factor)

    # Processes: all do the same steps, each on its own part of every batch.
    fabric = start_processes(settings, job.last_step)
    share = Share(settings, fabric.global_rank)
    method.to(fabric.device).to(memory_format=torch.channels_last)
    average_step = get_ema_multi_avg_fn(settings.average_decay)  # type: ignore[no-untyped-call]
    average = AveragedModel(copy.deepcopy(restorer).eval(), multi_avg_fn=average_step)
    rates, optimizers = _optimizers(job, method)
    state = TrainingState(method, average, optimizers, TrainingLog())

    # Start: from the shared pretraining or afresh; a checkpoint of this very training goes first.
    digests = {name: store.digest for name, store in stores.items()}
    if job.start_from is not None:
        state.load_restorer(job.start_from)
        digests["start"] = sha256_of(job.start_from)
    first_step = state.step
    facts = _facts(job, precision, fabric.device)
    # the leader's: another kind of processor, or a file that another node sees later, has another
    name = fabric.broadcast(fingerprint({**facts, "data": digests, "last_step": job.last_step}))
    if settings.gradient_checkpointing:
        checkpoint_gradients(method, settings.compile)
    if settings.compile:
        for network in rates:
            getattr(method, network).compile()  # in place: names of weights stay as they are
    module = fabric.setup_module(method)
    method.train()
    leads = fabric.is_global_zero
    kept_steps = snapshot_steps(first_step, job.last_step, settings.validate_every_steps)

    with (
        Checkpoint(name, job.folder, leads) as checkpoint,
        memory_errors(settings, checkpoint.path),
        lost_processes(),
        _stop_signals() as stop,
        TrainingDisplay(job, leads) as display,
        ExitStack() as opened,
    ):
        display.say(f"on {facts['device']}, {precision}")
        fabric.barrier()  # nobody reads before the leader holds the folder
        if checkpoint.path.is_file():
            state.load(checkpoint.path)
            display.go_on(state.step)
        require_same_step(fabric, state.step)
        incoming = opened.enter_context(closing(batches(crops, share, state.step, job.last_step)))
        for step in range(state.step + 1, job.last_step + 1):
            factor = _learning_rate_factor(settings, step)
            for network, optimizer in optimizers.items():
                optimizer.param_groups[0]["lr"] = rates[network] * factor
                optimizer.zero_grad(set_to_none=True)

            # Loss and gradients, share by share. The draws of a step are made for the whole batch
            # from (seed, step), so that an image's noise does not depend on who takes it.
            row_ends = step == settings.steps or step % settings.log_every_steps == 0
            progress = _progress(job, step, first_step, len(stores["synthetic"]), row_ends)
            draws = _draws(job, method, step, fabric.device)
            shares: list[dict[str, Tensor]] = []
            for number in range(settings.accumulate):
                with display.stopwatch.waiting():
                    batch = next(incoming)
                place = share.place(number)
                own = draws if draws is None else draws.part(place).to(fabric.device)
                torch.manual_seed(stable_seed(job.seed, "dropout", step, place.start))
                last_share = number == settings.accumulate - 1
                with fabric.no_backward_sync(module, enabled=not last_share):
                    with autocast(fabric.device, precision):
                        moved = batch.to(fabric.device, job.image_range)
                        terms = module(moved, own, progress)
                    # divided, so that the sum over shares is the gradient of their mean
                    fabric.backward(terms["total"] / settings.accumulate)
                shares.append({**terms, **squared_norms(method.gradient_norms)})
            logged = mean_terms(fabric, shares, norms=method.gradient_norms)
            require_finite(logged, step, checkpoint.path)

            # Update: all networks at once, then the moving average of the restorer.
            for network, optimizer in optimizers.items():
                if settings.clip_norm is not None:
                    clip_grad_norm_(getattr(method, network).parameters(), settings.clip_norm)
                optimizer.step()
            average.update_parameters(restorer)
            state.step = step

            # Bookkeeping: a log row at each interval, a checkpoint now and then or when told to.
            state.log.add(logged)
            if row_ends:
                validated = step == job.last_step or step % settings.validate_every_steps == 0
                scores: dict[str, float] = {}
                if validated and leads:
                    scores, restored = validation(average.module, fabric.device, precision)
                    if step in kept_steps:
                        state.keep_snapshots(restored)
                state.log.close_interval(
                    step, step * settings.batch, rates["restorer"] * factor, scores
                )
            display.step_done(step, state.log, row_ends)
            stops = any_process(fabric, stop.requested)
            due = stops or step % settings.checkpoint_every_steps == 0
            if due and leads and step < job.last_step:
                state.require_finite(checkpoint.path)
                state.save(checkpoint.path)
            if stops and step < job.last_step:
                fabric.barrier()
                display.say(f"stopped, saved at step {step}")
                # the leader's status counts; a follower's would make the launcher kill the leader
                sys.exit(RETRY_STATUS if leads else 0)

        if leads:
            state.require_finite(checkpoint.path)
            state.save(checkpoint.path)
            measured = _measure(job, crops, method, fabric.device, precision)
            _save_result(job, state, {**facts, "measured": measured})
            checkpoint.finish(job.folder / (STATE_FILE if job.keeps == "state" else MODEL_FILE))
        fabric.barrier()


def _networks(job: Job) -> tuple[nn.Module, Method]:
    """Return restorer and method; first weights of the restorer depend on the seed alone."""
    with seeded_torch(job.seed, "restorer weights"):
        restorer = build_restorer(job.restorer)
        initialize(restorer, job.train.initialization)
    with seeded_torch(job.seed, "other weights"):
        method = build_method(restorer, job.method)
        initialize(method, job.train.initialization, without=restorer)
    return restorer, method


def _open_stores(job: Job, wants: tuple[str, ...]) -> dict[str, ImageStore]:
    """Open what the training reads, sizes not yet checked."""
    names = ("synthetic", "real", "validation")
    stores = {name: ImageStore(job.images / f"{name}.h5") for name in names}
    if "unpaired" in wants:
        others = ImageStore(job.images / "unpaired.h5")
        # empty: the clean images of the synthetic pairs serve, in an order of their own
        stores["unpaired"] = others if len(others) else stores["synthetic"]
    if "truth" in wants:
        # opened here and nowhere else: no other method can see it
        stores["truth"] = ImageStore(job.images / "truth.h5")
    return stores


def _optimizers(
    job: Job, method: Method
) -> tuple[dict[str, float], dict[str, torch.optim.Optimizer]]:
    """Return the learning rate and Adam of each network."""
    settings = job.train
    base = settings.learning_rate * job.learning_rate_factor
    factors = {"restorer": 1.0, **method.learning_rate_factors()}
    rates = {name: base * factor for name, factor in factors.items()}
    # networks that play against each other want less momentum than the restorer: a method says so
    beta1, beta2 = settings.adam_betas
    momentum = method.momentum()
    others = (beta1 if momentum is None else momentum, beta2)
    optimizers: dict[str, torch.optim.Optimizer] = {
        name: torch.optim.Adam(
            getattr(method, name).parameters(),
            rate,
            betas=settings.adam_betas if name == "restorer" else others,
            fused=True,
        )
        for name, rate in rates.items()
    }
    return rates, optimizers


def _draws(job: Job, method: Method, step: int, device: torch.device) -> Draws | None:
    """Return the random numbers of a step, made where ``train.draws_on`` says."""
    settings = job.train
    there = str(device) if settings.draws_on == "device" else "cpu"
    shape = (settings.batch, 3, settings.patch, settings.patch)
    with torch.device(there):
        return method.draw(torch_generator(job.seed, "draws", step, device=there), shape)


def _progress(job: Job, step: int, first_step: int, images: int, logged: bool) -> Progress:
    done = step - first_step
    return Progress(
        step=done,
        epoch=1 + (done - 1) * job.train.batch // images,
        fraction=done / (job.last_step - first_step),
        logged=logged,
    )


def _save_result(job: Job, state: TrainingState, facts: dict[str, Any]) -> None:
    """Write the state, or the averaged restorer with its configuration inside, log and crops."""
    if job.keeps == "state":
        state.save(job.folder / STATE_FILE)
        return
    restorer = state.average.module
    own = parameter_count(restorer)
    model = {
        **facts,
        "steps": state.step,
        "parameters": own,
        "extra_parameters": parameter_count(state.method) - own,
    }
    save_tensors(job.folder / MODEL_FILE, restorer.state_dict(), model)
    save_tensors(job.folder / SNAPSHOTS_FILE, state.snapshots, {})
    write_text(job.folder / LOG_FILE, state.log.to_csv())


def _measure(
    job: Job, crops: JointCrops, method: Method, device: torch.device, precision: Precision
) -> dict[str, Any]:
    """Return the method's own measurements on the first images, without dropout."""
    images = range(min(MEASURED_IMAGES, job.train.batch))
    samples = [crops[number] for number in images]
    batch = crops.batch([torch.stack(role) for role in zip(*samples, strict=True)])
    black, white = job.image_range
    method.eval()
    with torch.inference_mode(), autocast(device, precision):
        generator = torch_generator(job.seed, "measure")
        moved = batch.to(device, job.image_range)
        measured: dict[str, Any] = method.measure(moved, generator, white - black)
    return measured


def _facts(job: Job, precision: str, device: torch.device) -> dict[str, Any]:
    """Return what decides the result apart from data and code; travels with the model."""
    without = list(WITHOUT_EFFECT)
    if not job.train.compile:  # compiled, what is computed again may round otherwise
        without.append("gradient_checkpointing")
    if device.type == "cpu":
        without.append("draws_on")
    facts = {
        "task": job.task_name,
        "method": job.method_name,
        "method_settings": asdict(job.method),
        "synthetic": asdict(job.synthetic),
        "image_range": job.image_range,
        "learning_rate": job.train.learning_rate * job.learning_rate_factor,
        "restorer": asdict(job.restorer),
        "train": {k: v for k, v in asdict(job.train).items() if k not in without},
        "seed": job.seed,
        "precision": precision,
        "device": describe_device(device),
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
