"""Settings of sources: which photographs there are, and how they are cut."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from pipeline.config.build import Setting

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

    ``degraded_name`` and ``clean_name`` say how the two images of a pair are named, without the
    ending: ``{}`` stands for what both share, as in ``{}_noisy`` and ``{}_clean``.
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
    degraded_name: str
    clean_name: str
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
    images inside its archives by file name; null checks none.

    ``typical_images`` says for each split how large its images are; null where nobody knows.
    ``max_images`` and ``max_gib`` (packed) shorten each of the training splits. ``min_side``,
    ``skip_unreadable``: see ``FolderSource``. ``truth_for``: the method for whose sake the clean
    partners of the unlabeled real photographs are packed too, into a file of their own as large as
    theirs; null leaves them in the archives.
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
