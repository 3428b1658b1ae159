"""Settings of tasks: where their images come from, and how they are degraded."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pipeline.config.build import Interval, Setting
from pipeline.config.degradations import Degradation
from pipeline.config.restorers import RestorerSettings


@dataclass(frozen=True)
class SyntheticDomain:
    """How clean images become synthetic pairs.

    ``draw``: ``anew`` degrades each training crop as it is read; ``stored`` degrades whole
    images once, ``copies`` times each, in the synthesize stage. ``degradation`` is null where the
    source brings pairs of its own.
    """

    degradation: Degradation | None
    draw: Literal["anew", "stored"]
    copies: Annotated[int, Setting(low=1, high=1000)]


@dataclass(frozen=True)
class SimulatedReal:
    """A stand-in for real photographs where a source has only clean ones.

    ``enlargement``: clean photographs are made so many times as high and wide first, as a sensor
    with more pixels than the lens shows detail takes them. Phones do: full-size photographs
    change by 1.6 to 3 of 255 from pixel to pixel, small ones for the screen by 4 to 9.
    """

    degradation: Degradation
    enlargement: Annotated[float, Setting(low=1, high=16, unit="of each side, Lanczos")]
    copies: Annotated[
        int, Setting(low=1, high=1000, unit="per unlabeled image; test images have one")
    ]


@dataclass(frozen=True)
class TaskSources:
    """Names of the sources that give each split of a task.

    ``unpaired`` gives the clean images that the unpaired extension noises (its split
    ``synthetic``); where it is the source ``synthetic`` itself, other crops of the same images.
    ``unseen_a`` to ``unseen_c`` give further test images (their split ``test``) of which nothing is
    seen in training; where one is the source ``test`` itself, there is no such. They are three,
    not a list, because each is a dependency that dvc.yaml must name.
    """

    synthetic: str
    unpaired: str
    real: str
    test: str
    unseen_a: str
    unseen_b: str
    unseen_c: str

    @property
    def unseen(self) -> list[str]:
        """The further sources of test images, each once."""
        named = dict.fromkeys((self.unseen_a, self.unseen_b, self.unseen_c))
        return [name for name in named if name != self.test]


@dataclass(frozen=True)
class Task:
    """One restoration task: where images come from, how they are degraded, how it is scored.

    ``draws``: from this name the random draws of degradations are made, so that tasks of the same
    settings and draws have the same images. ``restorer``: null for that of the run.
    ``test_on_synthetic``: the clean test images are also degraded as the synthetic domain is, which
    shows what adapting costs there.

    ``other_cameras``: by name, further degradations of the clean test images, of which nothing is
    seen in training either; null for none. ``image_range``: the values of black and white inside
    the networks and the losses.
    """

    sources: TaskSources
    synthetic: SyntheticDomain
    simulated_real: SimulatedReal | None
    test_on_synthetic: bool
    other_cameras: dict[str, Degradation] | None
    draws: str
    restorer: RestorerSettings | None
    image_range: Annotated[Interval, Setting(low=-1, high=1)]
    learning_rate_factor: Annotated[float, Setting(low=0, high=1000, unit="of train.learning_rate")]
    protocol: Literal["sidd", "y", "rgb"]
