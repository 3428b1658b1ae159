"""Train one restorer: read from top to bottom."""

import copy
import json
import math
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pipeline.config.data import SyntheticDomain
from pipeline.config.learning import Train, TrainedMethod
from pipeline.config.restorers import Restorer
from pipeline.datasets.batches import TRAINING_SIGNALS, JointCrops, Share, batches
from pipeline.device import (
    Precision,
    autocast,
    describe_device,
    prepare_torch,
    use_precision,
)
from pipeline.images.store import ImageStore
from pipeline.methods import Progress, build_adaptation
from pipeline.models.build import build_restorer, initialize, parameter_count
from pipeline.models.weights import save_tensors
from pipeline.randomness import seeded_torch, stable_seed, torch_generator
from pipeline.runtime.checkpoints import Checkpoint
from pipeline.runtime.files import sha256_of, write_text
from pipeline.runtime.paths import LOG_FILE, MODEL_FILE, STATE_FILE
from pipeline.training.log import ProgressDisplay, Stopwatch, TrainingLog, require_finite
from pipeline.training.processes import (
    any_process,
    mean_terms,
    require_same_step,
    start_processes,
)
from pipeline.training.state import TrainingState, fingerprint

WITHOUT_EFFECT = ("workers", "checkpoint_every_steps")
"""Training settings that change no result: a run may go on with others."""
RETRY_STATUS = 75
"""Exit status after a signal (EX_TEMPFAIL): the same command goes on from the checkpoint."""
MEASURED_IMAGES = 8
"""How many training images the method's measurements at the end use."""


@dataclass(frozen=True)
class Job:
    """One training: what to train, on what, up to which step, and where the results go."""

    title: str
    task_name: str
    method_name: str
    synthetic: SyntheticDomain
    image_range: tuple[float, float]
    learning_rate_factor: float
    method: TrainedMethod
    restorer: Restorer
    train: Train
    seed: int
    images: Path
    start_from: Path | None
    last_step: int
    keeps: Literal["state", "model"]
    folder: Path
    timings: Path


def train(job: Job) -> None:
    """Run a training to its last step, going on from its checkpoint if it was stopped before.

    Writes to ``job.folder`` either the whole state, for others to go on from, or the averaged
    restorer with its configuration inside and the log; durations to ``job.timings``.

    Raises:
        UserError: an image is smaller than the patch, the loss is not finite, the same training
            is under way elsewhere, there are too few GPUs.
    """
    settings = job.train
    prepare_torch(settings.threads)
    precision = use_precision(settings.precision)

    # Networks: the restorer's first weights depend on the seed alone, so all methods share them.
    with seeded_torch(job.seed, "restorer weights"):
        restorer = build_restorer(job.restorer)
        initialize(restorer, settings.initialization)
    with seeded_torch(job.seed, "other weights"):
        adaptation = build_adaptation(restorer, job.method)
        initialize(adaptation, settings.initialization, without=restorer)

    # Data: crops of both domains. Sizes are checked here, before any work.
    stores = _open_stores(job, adaptation.wants)
    crops = JointCrops(
        stores["synthetic"],
        stores["real"],
        job.synthetic,
        settings.patch,
        job.seed,
        stores.get("unpaired"),
        stores.get("truth"),
    )

    # Processes: all do the same steps, each on its own part of every batch.
    fabric = start_processes(settings, job.last_step)
    share = Share(settings, fabric.global_rank)
    adaptation.to(device=fabric.device, memory_format=torch.channels_last)
    average_step = get_ema_multi_avg_fn(settings.average_decay)  # type: ignore[no-untyped-call]
    average = AveragedModel(copy.deepcopy(restorer), multi_avg_fn=average_step)
    base_rate = settings.learning_rate * job.learning_rate_factor
    rate_factors = {"restorer": 1.0, **adaptation.learning_rate_factors()}
    networks = {name: getattr(adaptation, name) for name in rate_factors}
    # networks that play against each other want less momentum than the restorer: a method says so
    beta1, beta2 = settings.adam_betas
    extra_betas = (getattr(adaptation, "momentum", beta1), beta2)
    optimizers: dict[str, torch.optim.Optimizer] = {
        name: torch.optim.Adam(
            network.parameters(),
            base_rate,
            betas=settings.adam_betas if name == "restorer" else extra_betas,
            fused=True,
        )
        for name, network in networks.items()
    }
    state = TrainingState(adaptation, average, optimizers, TrainingLog())

    # Start: from the shared pretraining or afresh; a checkpoint of this very training goes first.
    digests = {name: store.digest for name, store in stores.items()}
    if job.start_from is not None:
        state.load_restorer(job.start_from)
        digests["start"] = sha256_of(job.start_from)
    first_step = state.step
    facts = _facts(job, precision, describe_device(fabric.device))
    # the leader's: another kind of processor, or a file that another node sees later, has another
    name = fabric.broadcast(fingerprint({**facts, "data": digests, "last_step": job.last_step}))
    if settings.compile:
        for network in networks.values():
            network.compile()  # in place: names of weights stay as they are
    module = fabric.setup_module(adaptation)
    adaptation.train()
    leads = fabric.is_global_zero
    stopwatch = Stopwatch()

    with (
        Checkpoint(name, job.folder, leads) as checkpoint,
        _stop_signals() as stop,
        ProgressDisplay(job.title, job.last_step, leads) as display,
        ExitStack() as opened,
    ):
        display.say(f"on {facts['device']}, {precision}")
        fabric.barrier()  # nobody reads before the leader holds the folder
        if checkpoint.path.is_file():
            state.load(checkpoint.path)
            stopwatch.go_on(job.timings, state.step)
            display.say(f"going on from step {state.step}")
        require_same_step(fabric, state.step)
        incoming = opened.enter_context(closing(batches(crops, share, state.step, job.last_step)))
        for step in range(state.step + 1, job.last_step + 1):
            factor = _learning_rate_factor(settings, step)
            for name, optimizer in optimizers.items():
                optimizer.param_groups[0]["lr"] = base_rate * rate_factors[name] * factor
                optimizer.zero_grad(set_to_none=True)

            # Loss and gradients, share by share. The draws of a step are made for the whole batch
            # from (seed, step), so that an image's noise does not depend on who takes it.
            done = step - first_step
            row_ends = step == settings.steps or step % settings.log_every_steps == 0
            progress = Progress(
                step=done,
                epoch=1 + (done - 1) * settings.batch // len(stores["synthetic"]),
                fraction=done / (job.last_step - first_step),
                logged=row_ends,
            )
            shape = (settings.batch, 3, settings.patch, settings.patch)
            draws = adaptation.draw(torch_generator(job.seed, "draws", step), shape)
            shares: list[dict[str, Tensor]] = []
            for number in range(settings.accumulate):
                with stopwatch.waiting():
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
                shares.append({**terms, **{n: v**2 for n, v in adaptation.gradient_norms.items()}})
            logged = mean_terms(fabric, shares)
            for name in adaptation.gradient_norms:
                # of the whole batch: shares add up, of a process's own gradient the mean is taken
                logged[name] = math.sqrt(logged[name] * settings.accumulate / fabric.world_size)
            require_finite(logged, step, checkpoint.path)

            # Update: all networks at once, then the moving average of the restorer.
            for name, optimizer in optimizers.items():
                if settings.clip_norm is not None:
                    clip_grad_norm_(networks[name].parameters(), settings.clip_norm)
                optimizer.step()
            average.update_parameters(restorer)
            state.step = step

            # Bookkeeping: a log row at each interval, a checkpoint now and then or when told to.
            state.log.add(logged)
            stopwatch.step_done()
            if row_ends:
                state.log.close_interval(step, step * settings.batch, base_rate * factor)
                stopwatch.close_interval(step)
            display.update(step, state.log, stopwatch)
            stops = any_process(fabric, stop.requested)
            due = stops or step % settings.checkpoint_every_steps == 0
            if due and leads and step < job.last_step:
                state.require_finite(checkpoint.path)
                state.save(checkpoint.path)
                write_text(job.timings, stopwatch.to_csv())
            if stops and step < job.last_step:
                fabric.barrier()
                display.say(f"stopped, saved at step {step}")
                # the leader's status counts; a follower's would make the launcher kill the leader
                sys.exit(RETRY_STATUS if leads else 0)

        if leads:
            state.require_finite(checkpoint.path)
            state.save(checkpoint.path)
            write_text(job.timings, stopwatch.to_csv())
            if job.keeps == "state":
                state.save(job.folder / STATE_FILE)
            else:
                model = {
                    **facts,
                    "steps": state.step,
                    "parameters": parameter_count(restorer),
                    "extra_parameters": parameter_count(adaptation) - parameter_count(restorer),
                    "measured": _measure(job, crops, adaptation, fabric.device, precision),
                }
                save_tensors(job.folder / MODEL_FILE, average.module.state_dict(), model)
                write_text(job.folder / LOG_FILE, state.log.to_csv())
            checkpoint.finish(job.folder / (STATE_FILE if job.keeps == "state" else MODEL_FILE))
        fabric.barrier()


def _open_stores(job: Job, wants: tuple[str, ...]) -> dict[str, ImageStore]:
    stores = {name: ImageStore(job.images / f"{name}.h5") for name in ("synthetic", "real")}
    if "unpaired" in wants:
        others = ImageStore(job.images / "unpaired.h5")
        # empty: the clean images of the synthetic pairs serve, in an order of their own
        stores["unpaired"] = others if len(others) else stores["synthetic"]
    if "truth" in wants:
        # opened here and nowhere else: no other method can see it
        stores["truth"] = ImageStore(job.images / "truth.h5")
    return stores


def _measure(
    job: Job, crops: JointCrops, adaptation: Any, device: torch.device, precision: Precision
) -> dict[str, Any]:
    """Return the method's own measurements on the first images, without dropout."""
    images = range(min(MEASURED_IMAGES, job.train.batch))
    samples = [crops[number] for number in images]
    batch = crops.batch([torch.stack(role) for role in zip(*samples, strict=True)])
    black, white = job.image_range
    adaptation.eval()
    with torch.inference_mode(), autocast(device, precision):
        generator = torch_generator(job.seed, "measure")
        moved = batch.to(device, job.image_range)
        measured: dict[str, Any] = adaptation.measure(moved, generator, white - black)
    return measured


def _facts(job: Job, precision: str, device: str) -> dict[str, Any]:
    """Return what decides the result apart from data and code; travels with the model."""
    facts = {
        "task": job.task_name,
        "method": job.method_name,
        "method_settings": asdict(job.method),
        "synthetic": asdict(job.synthetic),
        "image_range": job.image_range,
        "learning_rate": job.train.learning_rate * job.learning_rate_factor,
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
