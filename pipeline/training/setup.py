"""Make a training ready: networks, data, processes, and what it starts from."""

import json
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from pipeline.datasets.batches import JointCrops, Share
from pipeline.device import Precision, describe_device, prepare_torch, use_precision
from pipeline.images.store import ImageStore
from pipeline.methods.method import Method, build_method
from pipeline.models.build import build_restorer, initialize
from pipeline.models.checkpointing import checkpoint_gradients
from pipeline.randomness import seeded_torch
from pipeline.runtime.files import sha256_of
from pipeline.training.average import MovingAverage
from pipeline.training.fabric import Fabric
from pipeline.training.job import Job
from pipeline.training.log import TrainingLog
from pipeline.training.processes import start_processes
from pipeline.training.state import TrainingState, fingerprint
from pipeline.training.validation import Validation

WITHOUT_EFFECT = ("workers", "checkpoint_every_steps", "tensorboard")
"""Training settings that change no result: a run may go on with others."""


@dataclass
class Training:
    """A training made ready: networks, data, processes, and what it starts from.

    ``rates`` are the learning rates of the networks before they fall. ``facts`` decide the result
    apart from data and code; ``name`` stands for all three.
    """

    job: Job
    precision: Precision
    method: Method
    module: Any
    optimizers: dict[str, torch.optim.Optimizer]
    rates: dict[str, float]
    state: TrainingState
    crops: JointCrops
    validation: Validation
    fabric: Fabric
    share: Share
    first_step: int
    facts: dict[str, Any]
    name: str

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.fabric.is_global_zero


def set_up(job: Job) -> Training:
    """Make a training ready: sizes of images are checked here, before any work.

    Raises:
        UserError: see ``train``.
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
    method.to(fabric.device).to(memory_format=torch.channels_last)
    average = MovingAverage(restorer, settings.average_decay)
    rates, optimizers = _optimizers(job, method)
    state = TrainingState(method, average, optimizers, TrainingLog())

    # Start: from the shared pretraining or afresh.
    digests = {name: store.digest for name, store in stores.items()}
    if job.start_from is not None:
        state.load_restorer(job.start_from)
        digests["start"] = sha256_of(job.start_from)
    facts = _facts(job, precision, fabric.device)
    # the leader's: another kind of processor, or a file that another node sees later, has another
    name = fabric.broadcast(fingerprint({**facts, "data": digests, "last_step": job.last_step}))
    if settings.gradient_checkpointing:
        checkpoint_gradients(method, settings.compile)
    if settings.compile:
        torch.use_deterministic_algorithms(True)  # of the compiler, too
        for network in rates:
            getattr(method, network).compile()  # in place: names of weights stay as they are
    module = fabric.setup_module(method)
    method.train()
    share = Share(settings, fabric.global_rank)
    return Training(
        job, precision, method, module, optimizers, rates, state, crops, validation, fabric, share,
        state.step, facts, name,
    )  # fmt: skip


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
