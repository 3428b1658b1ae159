"""Settings of everything that makes images: sources and tasks."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from pipeline.config.checks import Interval, Setting
from pipeline.config.degradations import Degradation
from pipeline.config.restorers import Restorer

Split = Literal["synthetic", "real", "test"]
"""What a photograph is for: clean ones to make synthetic pairs, unlabeled real ones, test."""
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True)
class Crop:
    """Cut every image into squares; the last of a row or column lies flush with the edge.

    Images with a side of up to ``only_above`` stay whole.
    """

    side: Annotated[int, Setting(low=8, unit="pixels")]
    step: Annotated[int, Setting(low=1, unit="pixels")]
    only_above: Annotated[int, Setting(low=0, unit="pixels")]


@dataclass(frozen=True)
class Crops:
    """How the images of each split are cut before packing; null keeps them whole."""

    synthetic: Crop | None
    real: Crop | None
    test: Crop | None


@dataclass(frozen=True)
class Middle:
    """How much of a photograph is used, for each split; see ``BundledSource``."""

    synthetic: Annotated[int, Setting(low=8, unit="pixels")] | None
    real: Annotated[int, Setting(low=8, unit="pixels")] | None
    test: Annotated[int, Setting(low=8, unit="pixels")] | None


@dataclass(frozen=True)
class BundledPhotograph:
    """One photograph inside an installed package."""

    package: Literal["scikit-image", "matplotlib"]
    split: Split
    scene: str
    sha256: str


@dataclass(frozen=True)
class BundledSource:
    """Photographs that installed packages carry: nothing to download.

    ``middle``: for each split, the side of the square in the middle of every photograph that is
    used, before it is cut; null uses all. Enlarged photographs are large, and a demo is short.
    """

    kind: Literal["bundled"]
    location: str
    licence: str
    photographs: dict[str, BundledPhotograph]
    middle: Middle
    crops: Crops


@dataclass(frozen=True)
class PairFolders:
    """Two folders of images that are matched by file name without its ending."""

    degraded: str
    clean: str


@dataclass(frozen=True)
class FolderSource:
    """Photographs of one's own. ``clean``, ``real`` and ``test`` are folders below ``location``.

    A folder that a source does not have is null. ``degraded`` holds synthetic partners of the clean
    images, null where the task degrades them. ``test`` maps the name of a test set to its two
    folders and may be empty. ``min_side`` leaves out training images with a smaller side, counted:
    no patch fits into them; null keeps all. ``skip_unreadable`` leaves out training images that
    cannot be read, names and counts them; otherwise the first one stops the stage.
    """

    kind: Literal["folder"]
    location: str
    licence: str
    clean: str | None
    degraded: str | None
    real: str | None
    test: dict[str, PairFolders]
    min_side: Annotated[int, Setting(low=1, unit="pixels")] | None
    skip_unreadable: bool
    crops: Crops


@dataclass(frozen=True)
class Version:
    """Addresses of the same bytes, tried in order, and what is known of these bytes."""

    urls: tuple[str, ...]
    size_bytes: Annotated[int, Setting(low=1)] | None
    sha256: str | None
    md5: str | None


@dataclass(frozen=True)
class Archive:
    """A file to fetch, and its name here. Versions hold the same images, packed differently.

    ``about_gb`` is its rough size, told where no version's size is known; null if that is unknown.
    """

    file: str
    about_gb: Annotated[float, Setting(low=0, unit="10^9 bytes")] | None
    versions: tuple[Version, ...]

    @property
    def about_bytes(self) -> int | None:
        """Its size, exact where a version's is published; None if nobody knows."""
        known = [version.size_bytes for version in self.versions if version.size_bytes is not None]
        if known:
            return known[0]
        return None if self.about_gb is None else int(self.about_gb * 1e9)


@dataclass(frozen=True)
class TypicalImages:
    """Images of about one size, packed as pairs or alone: from these the disk is reckoned."""

    images: Annotated[int, Setting(low=1)]
    height: Annotated[int, Setting(low=1, unit="pixels")]
    width: Annotated[int, Setting(low=1, unit="pixels")]
    pairs: bool


@dataclass(frozen=True)
class FetchedSource:
    """A published data set, fetched as archives; the module ``kind`` knows their layout.

    ``location`` is ``pipeline/sources/fetch``, or the user's own copy: a file in place of the
    first archive, or a folder in place of all. ``page`` is where a person finds the archives.
    Of its data sets only ``data_sets`` are kept. ``expected_images`` holds their published numbers
    for each split before any limit; null checks none. ``lists_md5`` holds the MD5 of lists of
    images inside its archives by file name; null checks none. ``typical_images`` tells for each
    split how large its images are; null where nobody knows. ``max_images`` and ``max_gib`` (packed)
    shorten each of the training splits. ``min_side``, ``skip_unreadable``: see ``FolderSource``.
    ``truth_for``: the method for whose sake the clean partners of the unlabeled real photographs
    are packed too, into a file of their own as large as theirs; null leaves them in the archives.
    """

    kind: Literal[
        "sidd",
        "spa",
        "realblur",
        "dfwb",
        "rain13k",
        "gopro",
        "coco",
        "polyu",
        "cc15",
        "dnd",
        "real_internet",
    ]
    location: str
    licence: str
    page: str
    archives: dict[str, Archive]
    data_sets: tuple[str, ...]
    expected_images: dict[str, int] | None
    lists_md5: dict[str, str] | None
    typical_images: dict[str, tuple[TypicalImages, ...]] | None
    max_images: Annotated[int, Setting(low=1)] | None
    max_gib: Annotated[float, Setting(low=0, unit="GiB of packed pixels, without truth")] | None
    min_side: Annotated[int, Setting(low=1, unit="pixels")] | None
    skip_unreadable: bool
    truth_for: str | None
    crops: Crops


Source = BundledSource | FolderSource | FetchedSource


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
    ``other_cameras``: by name, further degradations of the clean test images, of which nothing is
    seen in training either; null for none. ``image_range``: the values of black and white inside
    the networks and the losses.
    """

    sources: TaskSources
    synthetic: SyntheticDomain
    simulated_real: SimulatedReal | None
    other_cameras: dict[str, Degradation] | None
    draws: str
    restorer: Restorer | None
    image_range: Annotated[Interval, Setting(low=-1, high=1)]
    learning_rate_factor: Annotated[float, Setting(low=0, high=1000, unit="of train.learning_rate")]
    protocol: Literal["sidd", "y", "rgb"]
