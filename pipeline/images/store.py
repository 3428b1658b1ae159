"""Packed images: one HDF5 file of 8-bit RGB images, written once in order, cropped at random.

Pixels lie one image after the other in one contiguous dataset for each role: ``degraded``,
``clean`` and, in the store of an evaluation, ``restored``. Contiguous means that a reader can map
them into memory: a random crop touches its own rows only, nothing is decoded or copied, and any
number of processes may read at once.

==================  ==========================  ==============================================
dataset             shape, type                 content
==================  ==========================  ==============================================
id, scene,          (images,) UTF-8 bytes       unique name; scene for splits and statistics;
data_set                                        name of the collection
domain, degraded_by (images,) UTF-8 bytes       see Record
seen                (images,) bool              see Record
height, width       (images,) int64             pixels
<role>_offset       (images,) int64             place of the first value, -1 where there is none
<role>              (values,) uint8             height x width x 3 values an image
==================  ==========================  ==============================================
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from pipeline.images.pixels import Pixels
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import replacing, require_space

FORMAT = "packed image pairs 2"
ROLES = ("degraded", "clean", "restored")
TEXTS = ("id", "scene", "data_set", "domain", "degraded_by")

Domain = Literal["real", "synthetic"]
DegradedBy = Literal["camera", "here"]

Loader = Callable[[], Pixels]


@dataclass(frozen=True)
class Record:
    """One image or pair to be packed; a loader gives (height, width, 3) uint8 when called.

    ``domain``: of the degraded version, or what a clean image is for. ``degraded_by``: a camera, or
    a model of this project. ``seen``: whether images of its camera or model are trained on.
    """

    id: str
    scene: str
    data_set: str
    height: int
    width: int
    degraded: Loader | None = None
    clean: Loader | None = None
    restored: Loader | None = None
    domain: Domain = "real"
    degraded_by: DegradedBy = "camera"
    seen: bool = True


def write_store(path: Path, records: Sequence[Record]) -> None:
    """Write the records to an HDF5 file in the order given; same records, same bytes.

    Holds one image in memory at a time.

    Raises:
        UserError: two records share an id, a loaded image has another size than declared, or the
            disk is too small.
    """
    seen: set[str] = set()
    for record in records:
        if record.id in seen:
            raise UserError(f"{path}: two images are named {record.id!r}; give each its own name")
        seen.add(record.id)
    offsets, totals = _layout(records)
    require_space(path.parent, sum(totals.values()) + 2**20)
    with replacing(path) as partial, h5py.File(partial, "w", libver="v110") as file:
        for name in TEXTS:
            encoded = [getattr(record, name).encode() for record in records]
            file.create_dataset(name, data=np.array(encoded, dtype="S") if encoded else _no_text())
        for name in ("height", "width"):
            values = [getattr(record, name) for record in records]
            file.create_dataset(name, data=np.array(values, dtype=np.int64))
        file.create_dataset("seen", data=np.array([record.seen for record in records], dtype=bool))
        for role in ROLES:
            file.create_dataset(f"{role}_offset", data=np.array(offsets[role], dtype=np.int64))
            file.create_dataset(role, (totals[role],), np.uint8, dcpl=_allocated_at_once())
        file.attrs["format"] = FORMAT
        file.attrs["digest"] = "0" * 64
        _reserve_space(file)
        digest = hashlib.sha256(repr(_identity(records)).encode())
        for role in ROLES:
            pixels = file[role]
            for record, offset in zip(records, offsets[role], strict=True):
                loader = getattr(record, role)
                if loader is None:
                    continue
                image = _load(loader, record, path)
                pixels[offset : offset + image.size] = image.reshape(-1)
                digest.update(image.tobytes())
        file.attrs.modify("digest", digest.hexdigest())


def _allocated_at_once() -> h5py.h5p.PropDCID:
    creation = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    creation.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    creation.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    return creation


def _reserve_space(file: h5py.File) -> None:
    # HDF5 may crash when a write fails, so the disk must be found full before there are any
    file.flush()
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.id.get_vfd_handle(), 0, file.id.get_filesize())


class ImageStore:
    """Read access to a file written by ``write_store``."""

    def __init__(self, path: Path) -> None:
        """Open the store.

        Raises:
            UserError: the file is missing or is no such store.
        """
        if not path.is_file():
            raise UserError(f"{path}: not found; 'dvc repro' or 'dvc checkout' makes it")
        self.path = path
        try:
            with h5py.File(path, "r") as file:
                if file.attrs.get("format") != FORMAT:
                    raise UserError(f"{path}: expected a store of {FORMAT!r}, found another file")
                self.digest: str = file.attrs["digest"]
                texts = {name: [value.decode() for value in file[name][:]] for name in TEXTS}
                self.ids, self.scenes = texts["id"], texts["scene"]
                self.data_sets, self.domains = texts["data_set"], texts["domain"]
                self.degraded_by = texts["degraded_by"]
                self.seen: NDArray[np.bool_] = file["seen"][:]
                self.heights: NDArray[np.int64] = file["height"][:]
                self.widths: NDArray[np.int64] = file["width"][:]
                self._offsets = {role: file[f"{role}_offset"][:] for role in ROLES}
                self._pixels = {role: _map(path, file[role]) for role in ROLES}
        except (OSError, KeyError) as error:
            raise UserError(
                f"{path}: cannot be read ({error}); delete it and run 'dvc repro'"
            ) from None

    def __len__(self) -> int:
        """Return the number of images or pairs."""
        return len(self.ids)

    def has(self, role: str, index: int) -> bool:
        """Return whether image ``index`` has a version of that role."""
        return bool(self._offsets[role][index] >= 0)

    def about(self, index: int) -> dict[str, Any]:
        """Return what is known of image ``index`` besides its pixels, as ``Record`` names it."""
        return {
            "id": self.ids[index],
            "scene": self.scenes[index],
            "data_set": self.data_sets[index],
            "height": int(self.heights[index]),
            "width": int(self.widths[index]),
            "domain": self.domains[index],
            "degraded_by": self.degraded_by[index],
            "seen": bool(self.seen[index]),
        }

    def image(self, role: str, index: int) -> Pixels:
        """Return the image of a role, a read-only view (height, width, 3) uint8."""
        offset = int(self._offsets[role][index])
        if offset < 0:
            raise UserError(f"{self.path}: image {self.ids[index]!r} has no {role} version")
        height, width = int(self.heights[index]), int(self.widths[index])
        flat = self._pixels[role][offset : offset + height * width * 3]
        return flat.reshape(height, width, 3)

    def require_size(self, size: int) -> None:
        """Raise UserError unless every image has at least ``size`` pixels on both sides."""
        for index, name in enumerate(self.ids):
            height, width = self.heights[index], self.widths[index]
            if min(height, width) < size:
                raise UserError(
                    f"{self.path}: image {name!r} is {width}x{height}, smaller than the training"
                    f" patch of {size}; remove the image or set a smaller train.patch"
                )


def _layout(records: Sequence[Record]) -> tuple[dict[str, list[int]], dict[str, int]]:
    offsets: dict[str, list[int]] = {role: [] for role in ROLES}
    totals = dict.fromkeys(ROLES, 0)
    for record in records:
        for role in ROLES:
            present = getattr(record, role) is not None
            offsets[role].append(totals[role] if present else -1)
            totals[role] += record.height * record.width * 3 * present
    return offsets, totals


def _load(loader: Loader, record: Record, path: Path) -> Pixels:
    image = loader()
    expected = (record.height, record.width, 3)
    if image.shape != expected or image.dtype != np.uint8:
        raise UserError(
            f"{path}: image {record.id!r} is {image.shape} {image.dtype}, expected {expected} uint8"
        )
    return image


def _identity(records: Sequence[Record]) -> list[tuple[object, ...]]:
    return [
        (
            r.id,
            r.scene,
            r.data_set,
            r.height,
            r.width,
            r.domain,
            r.degraded_by,
            r.seen,
            *(getattr(r, role) is None for role in ROLES),
        )
        for r in records
    ]


def _no_text() -> NDArray[np.bytes_]:
    return np.zeros(0, dtype="S1")


def _map(path: Path, dataset: h5py.Dataset) -> Pixels:
    if dataset.size == 0:
        return np.zeros(0, dtype=np.uint8)
    offset = dataset.id.get_offset()
    return np.memmap(path, dtype=np.uint8, mode="r", offset=offset, shape=dataset.shape)
