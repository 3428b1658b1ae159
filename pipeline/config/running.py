"""Settings of training, evaluation, report and resources."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pipeline.config.build import Setting

Initialization = Literal["default", "kaiming"]

"""First weights: each layer's own of PyTorch, or He et al.'s for all (the release)."""


@dataclass(frozen=True)
class Train:
    """Training of the restorer, the same for every method.

    A batch is divided evenly among ``nodes`` x ``devices`` processes, and each takes its part in
    ``accumulate`` shares before it updates. Memory depends on the share. The result depends on it
    in its last digits, in the dropout's masks, and in the method's contrastive term: that is of
    each share's mean errors (of each GPU's, in the release).

    The learning rate is constant while pretraining; with ``cosine`` it then falls to 0 along half a
    cosine, for every method alike. ``precision``: ``tf32`` is PyTorch's default and so the
    release's, on GPUs that have it (``pipeline/device.py``); on all else it is fp32.

    ``gradient_checkpointing`` takes less memory, a third more time, and changes no result
    (``pipeline/models/checkpointing.py``). ``draws_on``: noise and other draws of a step are made
    on the CPU, the same for every device, or on the device in a stream of its own. Each process
    makes them for the whole batch.
    """

    steps: Annotated[
        int, Setting(low=1, unit="restorer updates of every method, pretraining included")
    ]
    pretrain_steps: Annotated[
        int, Setting(low=0, unit="updates on synthetic pairs that methods share")
    ]
    batch: Annotated[int, Setting(low=1, high=65536, unit="images of each domain an update")]
    accumulate: Annotated[int, Setting(low=1, high=4096, unit="shares of a process's part")]
    devices: Annotated[int, Setting(low=1, high=64, unit="GPUs, or processes without, a node")]
    nodes: Annotated[int, Setting(low=1, high=1024, unit="machines that share a training")]
    patch: Annotated[int, Setting(low=8, high=4096, unit="pixels, side of a training crop")]
    initialization: Initialization
    learning_rate: Annotated[
        float, Setting(low=0, high=1, unit="of Adam, times the task's learning_rate_factor")
    ]
    learning_rate_decay: Literal["none", "cosine"]
    adam_betas: Annotated[
        tuple[float, float],
        Setting(low=0, high=0.999999, unit="decay of both of Adam's averages", ordered=False),
    ]
    clip_norm: Annotated[float | None, Setting(low=0, unit="of each network's gradient")]
    average_decay: Annotated[
        float, Setting(low=0, high=0.999999, unit="of the moving average of the weights")
    ]
    precision: Literal["auto", "fp32", "tf32", "bf16"]
    compile: bool
    gradient_checkpointing: bool
    draws_on: Literal["cpu", "device"]
    threads: Annotated[int, Setting(low=1, high=1024, unit="of each process")]
    workers: Annotated[
        int, Setting(low=0, high=256, unit="processes that read crops, for each GPU; 0: none")
    ]
    log_every_steps: Annotated[int, Setting(low=1, unit="updates between rows of the log")]
    validate_every_steps: Annotated[
        int, Setting(low=1, unit="a multiple of log_every_steps; PSNR of a few crops, for the log")
    ]
    checkpoint_every_steps: Annotated[int, Setting(low=1, unit="updates between checkpoints")]
    tensorboard: bool


@dataclass(frozen=True)
class Evaluate:
    """Restoration of the test images.

    ``processes`` score images while the next ones are restored; with 0 this is done in between.
    ``lpips_weights`` is torchvision's AlexNet file, without which LPIPS is not measured.
    """

    precision: Literal["auto", "fp32", "bf16"]
    threads: Annotated[int, Setting(low=1, high=1024, unit="of each process")]
    batch: Annotated[
        int, Setting(low=1, high=4096, unit="images of equal size restored at once, if no tiles")
    ]
    processes: Annotated[int, Setting(low=0, high=1024, unit="that score; 0: none")]
    lpips_weights: str | None
    tile: Annotated[
        int, Setting(low=32, unit="pixels; larger images are restored in overlapping tiles")
    ]
    tile_overlap: Annotated[int, Setting(low=0, unit="pixels")]
    kept_images: Annotated[int, Setting(low=0, unit="restored images of each data set")]


@dataclass(frozen=True)
class Report:
    """What the report shows."""

    examples: Annotated[int, Setting(low=0, high=100, unit="image rows a data set")]
    bootstrap_samples: Annotated[
        int, Setting(low=100, high=1_000_000, unit="draws of scenes for an interval")
    ]


@dataclass(frozen=True)
class Resources:
    """What a training asks a scheduler for; changes no result.

    ``threads`` are processors: of every process of a node its threads and those that read crops.
    ``gpu`` is 0 or ``train.devices``; an evaluation then takes one, for its own runtime.
    """

    threads: Annotated[int, Setting(low=1, high=4096, unit="processors of a job")]
    gpu: Annotated[int, Setting(low=0, high=64, unit="GPUs; 0: none")]
    mem_mb: Annotated[int, Setting(low=1, unit="10^6 bytes of main memory")]
    runtime: Annotated[int, Setting(low=1, unit="minutes")]
    evaluation_runtime: Annotated[int, Setting(low=1, unit="minutes")]
