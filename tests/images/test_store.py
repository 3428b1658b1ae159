"""The packed store, read back with h5py, and files that are whole or not there."""

import hashlib
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from pipeline.images.store import FORMAT, ROLES, ImageStore, Record, write_store
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import replacing, require_space, sha256_of, write_text

ROOT = Path(__file__).parents[2]
UNICODE = "Gerät/ünï 写真 📷"

FILL_THE_DISK = """
from pathlib import Path
import numpy as np
import pipeline.images.store
from pipeline.workflow import stage
from pipeline.config.params import Params
from pipeline.images.store import Record, write_store

def fill():
    try:
        with open("filler", "wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass
    except OSError:
        pass
    return np.zeros((8, 8, 3), np.uint8)

def main(params: Params) -> None:
    large = Record("large", "", "", SIDE, SIDE, clean=lambda: np.zeros((SIDE, SIDE, 3), np.uint8))
    write_store(Path("store.h5"), [Record("small", "", "", 8, 8, clean=fill), large])
    Path("filler").unlink()

pipeline.images.store.require_space = lambda folder, needed_bytes: None
stage.read_params = lambda: None
stage.run(main)
"""


def record(image: np.ndarray, id: str = "id", **roles: Any) -> Record:
    return Record(id, "scene", "set", *image.shape[:2], **(roles or {"clean": lambda: image}))


@pytest.fixture
def old(tmp_path: Path, pack: Callable[..., Path], pixels: Callable) -> tuple[Path, bytes]:
    """A store that is to be replaced, and its bytes."""
    path = pack(tmp_path / "store.h5", {"id": "old", "clean": pixels(99)})
    return path, path.read_bytes()


def assert_untouched(old: tuple[Path, bytes]) -> None:
    path, content = old
    assert path.read_bytes() == content
    assert [other.name for other in path.parent.glob("*store*")] == [path.name]
    assert not list(path.parent.glob(".*"))


# Round trip


def test_round_trip_of_sizes_and_roles(
    tmp_path: Path, pack: Callable[..., Path], pixels: Callable
) -> None:
    images: list[dict[str, Any]] = [
        {"id": "b", "scene": "s1", "degraded": pixels(1, 5, 7), "clean": pixels(2, 5, 7)},
        {"id": "a", "scene": "s1", "data_set": "other", "clean": pixels(3, 1, 1)},
        {"id": UNICODE, "scene": UNICODE, "data_set": UNICODE, "degraded": pixels(4, 9, 2)},
        {"id": "", "scene": "", "data_set": "", "restored": pixels(5, 2, 9)},
    ]
    store = ImageStore(pack(tmp_path / "folder" / "store.h5", *images))
    assert len(store) == 4
    assert store.ids == ["b", "a", UNICODE, ""]
    assert store.scenes == ["s1", "s1", UNICODE, ""]
    assert store.data_sets == ["set", "other", UNICODE, ""]
    assert store.heights.tolist() == [5, 1, 9, 2]
    assert store.widths.tolist() == [7, 1, 2, 9]
    for index, image in enumerate(images):
        for role in ROLES:
            assert store.has(role, index) == (role in image)
            if role in image:
                assert_array_equal(store.image(role, index), image[role], strict=True)
            else:
                with pytest.raises(UserError, match=f"{image['id']!r} has no {role} version"):
                    store.image(role, index)


def test_the_file_is_laid_out_as_described(
    tmp_path: Path, pack: Callable[..., Path], pixels: Callable
) -> None:
    first, second, third = pixels(1, 5, 7), pixels(2, 3, 4), pixels(3, 3, 4)
    path = pack(
        tmp_path / "store.h5",
        {"id": "é", "degraded": first},
        {"id": "b", "degraded": second, "clean": third},
    )
    with h5py.File(path, "r") as file:
        assert file.attrs["format"] == FORMAT
        assert [value.decode("utf-8") for value in file["id"]] == ["é", "b"]
        assert file["degraded_offset"][:].tolist() == [0, 5 * 7 * 3]
        assert file["clean_offset"][:].tolist() == [-1, 0]
        assert file["restored_offset"][:].tolist() == [-1, -1]
        assert_array_equal(file["degraded"][:], np.append(first.ravel(), second.ravel()))
        assert_array_equal(file["clean"][:], third.ravel())
        assert file["restored"].shape == (0,)
        assert file["degraded"].chunks is None  # contiguous, so that it can be mapped


def test_an_empty_store(tmp_path: Path, pack: Callable[..., Path]) -> None:
    store = ImageStore(pack(tmp_path / "store.h5"))
    assert len(store) == 0 and store.ids == []
    store.require_size(10**6)


def test_an_image_is_loaded_only_when_its_turn_comes(tmp_path: Path, pixels: Callable) -> None:
    order = []

    def loader(name: str) -> Callable[[], np.ndarray]:
        return lambda: (order.append(name), pixels(1))[1]

    records = [record(pixels(1), id, clean=loader(id)) for id in "cab"]
    assert order == []
    write_store(tmp_path / "store.h5", records)
    assert order == ["c", "a", "b"]


def test_the_same_records_give_the_same_bytes_at_another_time(
    tmp_path: Path, pack: Callable[..., Path], pixels: Callable
) -> None:
    images = {"id": "a", "clean": pixels(1)}, {"id": "b", "degraded": pixels(2)}
    first = pack(tmp_path / "first.h5", *images).read_bytes()
    time.sleep(1.1)  # HDF5 counts whole seconds
    assert pack(tmp_path / "second.h5", *images).read_bytes() == first


def test_every_difference_changes_the_digest(
    tmp_path: Path, pack: Callable[..., Path], pixels: Callable
) -> None:
    image = pixels(1, 4, 6)
    one_value = image.copy()
    one_value[3, 5, 2] ^= 1
    other = {"id": "other", "clean": pixels(2, 4, 6)}
    base = {"id": "a", "scene": "s", "data_set": "d", "clean": image}
    variants = [
        [base],
        [base | {"clean": one_value}],
        [base | {"clean": image.reshape(6, 4, 3)}],
        [base | {"id": "b"}],
        [base | {"scene": "t"}],
        [base | {"data_set": "e"}],
        [{**{key: base[key] for key in ("id", "scene", "data_set")}, "degraded": image}],
        [base | {"degraded": image}],
        [base, other],
        [other, base],
        [],
    ]
    digests = [
        ImageStore(pack(tmp_path / f"{number}.h5", *images)).digest
        for number, images in enumerate(variants)
    ]
    assert len(set(digests)) == len(variants)
    assert ImageStore(pack(tmp_path / "again.h5", base)).digest == digests[0]


# Mistakes


def test_two_images_of_one_name_are_told(old: tuple[Path, bytes], pixels: Callable) -> None:
    with pytest.raises(UserError, match="two images are named 'same'"):
        write_store(old[0], [record(pixels(1), "same"), record(pixels(2), "same")])
    assert_untouched(old)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((16, 12, 3), np.uint8),
        np.zeros((12, 16), np.uint8),
        np.zeros((12, 16, 4), np.uint8),
        np.zeros((12, 16, 3), np.float32),
    ],
    ids=["turned", "grey", "alpha", "float"],
)
def test_an_image_unlike_its_record_is_told(
    old: tuple[Path, bytes], pixels: Callable, wrong: np.ndarray
) -> None:
    right = pixels(1)
    records = [record(right, "right"), record(right, "odd", clean=lambda: wrong)]
    with pytest.raises(UserError, match=r"image 'odd' is .* expected \(12, 16, 3\) uint8"):
        write_store(old[0], records)
    assert_untouched(old)


def test_a_loader_that_fails_leaves_the_old_file(old: tuple[Path, bytes], pixels: Callable) -> None:
    def fail() -> np.ndarray:
        raise UserError("damaged image")

    with pytest.raises(UserError, match="damaged image"):
        write_store(old[0], [record(pixels(1), "a"), record(pixels(1), "b", clean=fail)])
    assert_untouched(old)


def test_a_failure_leaves_nothing_where_nothing_was(tmp_path: Path, pixels: Callable) -> None:
    wrong = record(pixels(1), clean=lambda: pixels(1, 2, 2))
    with pytest.raises(UserError):
        write_store(tmp_path / "folder" / "store.h5", [wrong])
    assert not list((tmp_path / "folder").iterdir())


def test_no_store_is_told(tmp_path: Path) -> None:
    (tmp_path / "folder.h5").mkdir()
    for name in ("absent.h5", "folder.h5"):
        with pytest.raises(UserError, match=f"{name}: not found; 'dvc repro'"):
            ImageStore(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"text", b"\x89PNG\r\n\x1a\n" + bytes(500)])
def test_a_file_that_is_no_hdf5_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "store.h5"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"store.h5: cannot be read .*; delete it"):
        ImageStore(path)


def test_a_truncated_file_is_told(old: tuple[Path, bytes]) -> None:
    path, content = old
    for length in (8, 100, 2000, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match="delete it and run 'dvc repro'"):
            ImageStore(path)


def test_another_hdf5_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "store.h5"
    with h5py.File(path, "w") as file:
        file["id"] = [1, 2]
    with pytest.raises(UserError, match=f"expected a store of '{FORMAT}', found another file"):
        ImageStore(path)
    with h5py.File(path, "a") as file:
        file.attrs["format"] = FORMAT
    with pytest.raises(UserError, match="cannot be read"):
        ImageStore(path)


def test_images_smaller_than_a_patch_are_named(
    tmp_path: Path, pack: Callable[..., Path], pixels: Callable
) -> None:
    images = {"id": "large", "clean": pixels(1, 9, 9)}, {"id": "flat", "clean": pixels(2, 8, 20)}
    store = ImageStore(pack(tmp_path / "store.h5", *images))
    store.require_size(8)
    with pytest.raises(UserError, match=r"image 'flat' is 20x8, smaller .* patch of 9"):
        store.require_size(9)


# Reading


def test_images_are_views_of_the_file_that_nobody_can_write(old: tuple[Path, bytes]) -> None:
    store = ImageStore(old[0])
    image = store.image("clean", 0)
    assert np.shares_memory(image, store.image("clean", 0))
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0, 0] = 1
    with pytest.raises(ValueError, match=r"WRITEABLE|writeable"):
        image.setflags(write=True)
    assert_untouched(old)


def test_processes_read_at_once(
    tmp_path: Path, pack: Callable[..., Path], pixels: Callable
) -> None:
    images = [pixels(seed, 40, 50) for seed in range(6)]
    path = pack(
        tmp_path / "store.h5",
        *({"id": str(number), "clean": image} for number, image in enumerate(images)),
    )
    opened_before = ImageStore(path)
    expected = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]

    def read(results: Any) -> None:
        for _ in range(20):
            for store in (opened_before, ImageStore(path)):
                found = [
                    hashlib.sha256(store.image("clean", index).tobytes()).hexdigest()
                    for index in range(len(store))
                ]
                results.put(found == expected)

    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    processes = [context.Process(target=read, args=(results,)) for _ in range(4)]
    for process in processes:
        process.start()
    assert all(results.get() for _ in range(4 * 20 * 2))
    for process in processes:
        process.join()
        assert process.exitcode == 0


# Full disks


def test_too_small_a_disk_is_told_before_writing(
    small_disk: Path, pack: Callable[..., Path], pixels: Callable
) -> None:
    path = small_disk / "store.h5"
    content = small_store(path)
    with pytest.raises(UserError, match=r"small_disk: \d MiB free, \d+ MiB needed; free some disk"):
        pack(path, {"id": "a", "clean": pixels(1, 1024, 2048)})
    assert path.read_bytes() == content
    assert list(small_disk.iterdir()) == [path]


def small_store(path: Path) -> bytes:
    """Write a store that ``write_store`` would not put on so small a disk."""
    beside = path.parent.parent / "beside.h5"
    write_store(beside, [record(np.full((4, 4, 3), 7, np.uint8))])
    shutil.copyfile(beside, path)
    return path.read_bytes()


@pytest.mark.parametrize("side", [400, 900], ids=["fits but for others", "does not fit"])
def test_a_disk_that_fills_up_while_writing(small_disk: Path, side: int) -> None:
    """Others may write too, and a quota shows only when it is reached."""
    path = small_disk / "store.h5"
    content = small_store(path)
    done = subprocess.run(
        [sys.executable, "-c", FILL_THE_DISK.replace("SIDE", str(side))],
        cwd=small_disk,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    if done.returncode == 0 and side == 400:
        assert ImageStore(path).ids == ["small", "large"]
    else:
        assert path.read_bytes() == content
        assert done.stderr.startswith("error: disk full while writing"), done.stderr[-500:]
        assert done.stderr.count("\n") == 1
        assert done.returncode == 2
    assert {other.name for other in small_disk.iterdir()} <= {"store.h5", "filler", "logs"}


def test_required_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = 5 * 2**20
    usage = shutil.disk_usage(tmp_path)._replace(free=free)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    require_space(tmp_path / "new", free)
    with pytest.raises(UserError, match="new: 5 MiB free, 2,048 MiB needed; free some disk space"):
        require_space(tmp_path / "new", 2**31)


# Whole files


def test_replacing_swaps_only_on_success(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "folder" / "file"
    with replacing(path) as partial:
        partial.write_text("old")
        assert not path.exists() and partial.parent == path.parent
    with pytest.raises(ZeroDivisionError), replacing(path) as partial:
        partial.write_text("new")
        1 / 0  # noqa: B018
    assert path.read_text() == "old"
    with replacing(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_a_killed_writer_leaves_the_old_file_and_stops_no_other(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text(path, "old")

    def die() -> None:
        with replacing(path) as partial:
            partial.write_text("half")
            os._exit(1)

    process = multiprocessing.get_context("fork").Process(target=die)
    process.start()
    process.join()
    assert path.read_text() == "old"
    write_text(path, "new")
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_text_is_utf_8_with_plain_line_ends(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "größe\n写真\n")
    assert (tmp_path / "file").read_bytes() == "größe\n写真\n".encode()


def test_sha256(tmp_path: Path) -> None:
    """Against the example of FIPS 180-2."""
    (tmp_path / "file").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of(tmp_path / "file") == expected
