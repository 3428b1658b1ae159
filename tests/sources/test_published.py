"""Published data sets: miniature archives in the exact layouts, paired, split, packed."""

import csv
import dataclasses
import hashlib
import io
import os
import random
import re
import shutil
import stat
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from omegaconf import OmegaConf

from pipeline.config.compose import compose
from pipeline.config.read import check
from pipeline.config.sources import Crop, Crops, FetchedSource
from pipeline.datasets import prepare as preparing
from pipeline.datasets.prepare import prepare
from pipeline.images.store import ImageStore
from pipeline.runtime import streaming
from pipeline.runtime.errors import UserError
from pipeline.sources import download, source_module
from pipeline.sources.pairs import chosen, limited
from pipeline.sources.photographs import Photograph
from tests.helpers import miniatures as mini

KINDS = ["sidd", "spa", "realblur", "dfwb", "rain13k", "gopro", "coco", "polyu", "cc15", "dnd",
         "real_internet"]  # fmt: skip
WHOLE = Crops(None, None, None)


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FetchedSource]:
    """The published data sets as pipeline/conf has them."""
    path = tmp_path_factory.mktemp("conf") / "params.yaml"
    compose([f"sources=[skimage,{','.join(KINDS)}]"], path)
    sources = check(OmegaConf.to_container(OmegaConf.load(path))).sources
    return {name: value for name, value in sources.items() if isinstance(value, FetchedSource)}


@pytest.fixture
def settings(published: dict[str, FetchedSource]) -> Callable[..., FetchedSource]:
    """Return a data set's settings without its published numbers, changed as asked for."""

    def make(kind: str, **changes: Any) -> FetchedSource:
        unknown = {"expected_images": None, "lists_md5": None, "min_side": None}
        return dataclasses.replace(published[kind], **(unknown | changes))

    return make


class Raw:
    """A folder of archives, and what a data set makes of it."""

    def __init__(self, folder: Path, settings: Callable[..., FetchedSource]) -> None:
        self.folder, self.settings = folder / "raw" / "set", settings
        self.prepared = folder / "prepared" / "set"
        self.folder.mkdir(parents=True)

    def put(self, files: dict[str, bytes]) -> "Raw":
        for name, content in files.items():
            (self.folder / name).write_bytes(content)
        return self

    def listed(self, kind: str) -> list[Photograph]:
        with preparing.readable(self.folder):
            return source_module(kind).photographs(self.settings(kind), self.folder)

    def ids(self, kind: str) -> list[tuple[str, str, str, str]]:
        return [(p.split, p.id, p.scene, p.data_set) for p in self.listed(kind)]

    def prepare(self, kind: str, **changes: Any) -> dict[str, ImageStore]:
        prepare(self.settings(kind, **changes), self.folder, self.prepared)
        return {split: ImageStore(self.prepared / f"{split}.h5")
                for split in ("synthetic", "real", "test")}  # fmt: skip

    def refused(self, kind: str, **changes: Any) -> str:
        with pytest.raises(UserError) as caught:
            self.prepare(kind, **changes)
        assert "\n" not in str(caught.value)
        assert not list(self.prepared.parent.rglob("*.partial")), "nothing half-made is left"
        return str(caught.value)


@pytest.fixture
def raw(tmp_path: Path, settings: Callable[..., FetchedSource]) -> Raw:
    return Raw(tmp_path, settings)


# Every data set in every layout


@pytest.mark.parametrize("prefix", ["train/", "SIDD_Medium_Srgb/Data/"])
def test_sidd(raw: Raw, prefix: str) -> None:
    raw.put({"a.zip": mini.sidd_medium(prefix), "v.zip": mini.sidd_validation("test1/")})
    stores = raw.prepare("sidd", crops=Crops(None, Crop(32, 24, 0), None))
    photographs = [f"{scene}/{shot}" for scene in mini.SCENES for shot in ("010", "011")]
    places = [(0, 0), (0, 16), (8, 0), (8, 16)]  # 40 x 48 in squares of 32
    assert stores["real"].ids == [
        f"{p}_{top:04d}_{left:04d}" for p in photographs for top, left in places
    ]
    assert set(stores["real"].scenes) == set(mini.SCENES)
    noisy = mini.pixels(f"{prefix}{mini.SCENES[0]}/0001_NOISY_SRGB_010.PNG")
    assert_array_equal(stores["real"].image("degraded", 3), noisy[8:40, 16:48])
    assert not stores["real"].has("clean", 0), "unlabeled"
    test = stores["test"]
    assert test.ids[:4] == [f"validation_00/{b:02d}" for b in range(3)] + ["validation_01/00"]
    assert test.data_sets == ["SIDD validation"] * 6
    for index in range(6):
        scene, block = divmod(index, 3)
        for role, name in (("degraded", "Noisy"), ("clean", "Gt")):
            assert_array_equal(test.image(role, index), mini.blocks(name)[scene, block])


def test_sidd_small(raw: Raw) -> None:
    found = raw.put({"SIDD_Small.zip": mini.sidd_small()}).ids("sidd")
    assert found == [("real", f"{scene}/010", scene, "SIDD") for scene in mini.SCENES]


def test_sidd_blocks_as_loose_files(raw: Raw) -> None:
    """As the authors' server has them."""
    for role, name in (("Noisy", "ValidationNoisyBlocksSrgb"), ("Gt", "ValidationGtBlocksSrgb")):
        raw.put({f"{name}.mat": mini.mat(name, mini.blocks(role))})
    assert len(raw.prepare("sidd")["test"]) == 6


def test_spa_of_the_authors(raw: Raw) -> None:
    parts = mini.in_parts(mini.spa_train(), "real_world.zip", 4)
    raw.put(parts | {"real_world.txt": mini.spa_list(), "real_test_1000.zip": mini.spa_test()})
    stores = raw.prepare("spa")
    assert sorted(stores["real"].ids) == sorted(mini.CROPS)
    assert set(stores["real"].scenes) == {"000", "001"}
    index = stores["real"].ids.index(mini.CROPS[1])
    expected = mini.pixels(f"real_world/{mini.CROPS[1]}.png")
    assert_array_equal(stores["real"].image("degraded", index), expected)
    assert stores["test"].ids == ["test/000", "test/001", "test/002"]
    truth = mini.pixels("real_test_1000/gt/001gt.png")
    assert_array_equal(stores["test"].image("clean", 1), truth)


def test_spa_follows_its_list(raw: Raw) -> None:
    raw.put({"real_world.zip": mini.spa_train(), "real_world.txt": mini.spa_list(mini.CROPS[:3])})
    assert len(raw.listed("spa")) == 3
    raw.put({"real_world.txt": mini.spa_list([*mini.CROPS, "9/9"])})
    assert "real_world.txt, line 5: expected '<rain> <gt>'" in raw.refused("spa")


@pytest.mark.parametrize("prefix", ["", "./", "SPA/", "real_world/", "real_world_gt/"])
@pytest.mark.parametrize("listed", [True, False])
def test_spa_takes_the_innermost_folder(raw: Raw, prefix: str, listed: bool) -> None:
    folders = [f"{prefix}real_world", f"{prefix}real_world_gt"]
    names = [f"{folder}/{crop}.png" for crop in mini.CROPS for folder in folders]
    raw.put({"a.zip": mini.as_zip(mini.images(names))})
    if listed:
        raw.put({"real_world.txt": mini.spa_list()})
    stores = raw.prepare("spa")
    assert sorted(stores["real"].ids) == sorted(mini.CROPS)
    shown = stores["real"].image("degraded", stores["real"].ids.index(mini.CROPS[0]))
    assert_array_equal(shown, mini.pixels(f"{prefix}real_world/{mini.CROPS[0]}.png"))


def test_spa_pairs_as_its_list_says(raw: Raw) -> None:
    """Two rainy crops share a truth, which lies under a third name."""
    rain, truth = ["real_world/000/a_1.png", "real_world/000/a_2.png"], "real_world_gt/t/b.png"
    files = mini.images([*rain, truth, "real_world_gt/000/a_1.png"])
    listing = "".join(f"/{name} /{truth}\n" for name in rain).encode()
    listed = raw.put({"a.zip": mini.as_zip(files), "real_world.txt": listing}).listed("spa")
    assert [(p.id, p.degraded.name) for p in listed] == [
        ("000/a_1", rain[0]), ("000/a_2", rain[1]),
    ]  # fmt: skip


def test_spa_of_kaggle(raw: Raw) -> None:
    found = raw.put({"spadata.zip": mini.spa_kaggle()}).ids("spa")
    real = [("real", str(n), str(n), "SPA train") for n in range(1, 5)]
    assert found == real + [("test", f"test/{n}", f"test {n}", "SPA test") for n in range(5, 8)]


@pytest.mark.parametrize("prefix", ["", "./", "RealBlur/"])
@pytest.mark.parametrize("packed", [True, False])
def test_realblur(raw: Raw, prefix: str, packed: bool) -> None:
    pack = mini.as_tar_gz if packed else mini.as_tar
    name = "RealBlur.tar.gz" if packed else "RealBlur.tar"
    raw.put({name: pack(mini.realblur(), prefix)})
    stores = raw.prepare("realblur")
    assert stores["real"].ids == [f"J/scene{s:03d}-{k}" for s in (1, 3) for k in (1, 2)]
    assert stores["test"].ids == ["J/scene002-1", "J/scene002-2"]
    assert set(stores["test"].data_sets) == {"RealBlur-J"}
    folder = mini.BLUR_SETS["J"]
    for role, part in (("degraded", "blur"), ("clean", "gt")):
        expected = mini.pixels(f"{folder}/scene002/{part}/{part}_2.png")
        assert_array_equal(stores["test"].image(role, 1), expected)
    assert [path.name for path in raw.folder.parent.iterdir()] == ["set"], (
        "what was unpacked is gone"
    )
    other = raw.prepare("realblur", data_sets=("RealBlur-R",))
    assert other["test"].ids == ["R/scene002-1", "R/scene002-2"]


def test_another_list_than_the_published_one_is_told(raw: Raw) -> None:
    files = mini.realblur()
    md5 = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    name = "RealBlur_J_test_list.txt"
    raw.put({"a.tar": mini.as_tar(files, "RealBlur/")})
    assert raw.prepare("realblur", lists_md5={name: md5[name]})["test"].ids
    told = raw.refused("realblur", lists_md5={name: "0" * 32})
    assert re.search(f"RealBlur/{name}: expected .* md5 0{{32}}, found md5 {md5[name]};", told)


def test_realblur_flat(raw: Raw) -> None:
    found = raw.put({"test.zip": mini.realblur_flat()}).ids("realblur")
    assert found == [
        ("test", f"{which}/scene002-{k}", f"{which}/scene002", f"RealBlur-{which}")
        for which in "JR" for k in (5, 6)
    ]  # fmt: skip


def test_dfwb_as_four_archives_and_as_one(raw: Raw, tmp_path: Path) -> None:
    raw.put({name: mini.as_zip(mini.images(names)) for name, names in mini.DFWB.items()})
    four = raw.ids("dfwb")
    flat = [Path(name).name for names in mini.DFWB.values() for name in names]
    shutil.rmtree(raw.folder)
    raw.folder.mkdir()
    one = raw.put({"DFWB_RGB.zip": mini.as_zip(mini.images(flat))}).ids("dfwb")
    assert one == four
    assert [(p[1], p[3]) for p in four] == [
        ("BSD400/100007", "BSD400"), ("DIV2K/0001", "DIV2K"), ("DIV2K/0002", "DIV2K"),
        ("Flickr2K/000001", "Flickr2K"), ("Waterloo_Exploration/00001", "Waterloo Exploration"),
        ("Waterloo_Exploration/00002", "Waterloo Exploration"),
    ]  # fmt: skip


def test_dfwb_of_the_authors(raw: Raw) -> None:
    raw.put(
        {
            "DIV2K_train_HR.zip": mini.as_zip(mini.images(["DIV2K_train_HR/0800.png"])),
            "Flickr2K.tar": mini.as_tar(
                mini.images(
                    [
                        "Flickr2K/Flickr2K_HR/002650.png",
                        "Flickr2K/Flickr2K_LR_bicubic/X2/002650x2.png",
                    ]
                )
            ),
            "BSR_bsds500.tgz": mini.as_tar_gz(
                mini.images(
                    f"BSR/BSDS500/data/images/{part}/{number}.jpg"
                    for part, number in (("train", 12003), ("val", 3096), ("test", 2018))
                )
            ),
            "w.zip": mini.as_zip(
                mini.images(["exploration_database_and_code/pristine_images/04744.bmp"])
            ),
        }
    )
    assert [photograph.id for photograph in raw.listed("dfwb")] == [
        "BSD400/12003", "BSD400/2018", "DIV2K/0800", "Flickr2K/002650",
        "Waterloo_Exploration/04744",
    ]  # fmt: skip


def test_dfwb_is_cut_only_where_both_sides_exceed_the_limit(raw: Raw) -> None:
    """In squares of 16 every 13 where both sides exceed 30."""
    sizes = {"DIV2K/0001.png": (30, 90), "DIV2K/0002.png": (31, 31), "DIV2K/0003.png": (90, 30)}
    files = {name: mini.image(name, *size) for name, size in sizes.items()}
    raw.put({"DIV2K.zip": mini.as_zip(files)})
    store = raw.prepare("dfwb", crops=Crops(Crop(16, 13, 30), None, None))["synthetic"]
    cuts = [f"DIV2K/0002_{top:04d}_{left:04d}" for top in (0, 13, 15) for left in (0, 13, 15)]
    assert store.ids == ["DIV2K/0001", *cuts, "DIV2K/0003"]
    assert (store.heights[0], store.widths[0]) == (30, 90)


def test_rain13k(raw: Raw) -> None:
    stores = raw.put({"train.zip": mini.rain13k()}).prepare("rain13k")
    assert stores["synthetic"].ids == ["1", "2", "3"]
    expected = mini.pixels("train/Rain13K/input/2.png")
    assert_array_equal(stores["synthetic"].image("degraded", 1), expected)
    assert stores["synthetic"].has("clean", 2)


@pytest.mark.parametrize("layout", ["official", "restormer"])
def test_gopro(raw: Raw, layout: str) -> None:
    if layout == "official":
        raw.put({"GOPRO_Large.zip": mini.gopro_official()})
    else:
        raw.put({"a.zip": mini.gopro_restormer(), "b.zip": mini.gopro_restormer("test")})
    found = raw.ids("gopro")
    assert found[:2] == [
        ("synthetic", f"GOPR0372_07_00/0000{frame}", "GOPR0372_07_00", "GoPro train")
        for frame in (47, 48)
    ]
    assert {item[0] for item in found[2:]} == {"test"} and len(found) == 4
    if layout == "official":
        store = raw.prepare("gopro")["synthetic"]
        expected = mini.pixels("train/GOPR0372_07_00/blur/000047.png")  # not blur_gamma
        assert_array_equal(store.image("degraded", 0), expected)
        assert len(raw.prepare("gopro")["test"]) == 0, "data_sets names the training pairs only"


def test_coco(raw: Raw) -> None:
    names = ["train2017/000000000009.jpg", "val2017/000000000139.jpg"]
    raw.put({"train2017.zip": mini.as_zip(mini.images(names))})
    assert raw.prepare("coco")["synthetic"].ids == ["000000000009"]
    stores = raw.prepare("coco", data_sets=("COCO val2017",))
    assert stores["synthetic"].ids == ["000000000139"]


def test_polyu_and_cc15(raw: Raw, tmp_path: Path) -> None:
    scene = "PolyU-master/CroppedImages/Canon5D2_5_160_3200_toy"
    names = [f"{scene}_{crop}_{role}.JPG" for crop in (1, 2) for role in ("real", "mean")]
    raw.put({"p.zip": mini.as_zip(mini.images([*names, "PolyU-master/OriginalImages/x_Real.JPG"]))})
    key = "Canon5D2_5_160_3200_toy"
    assert raw.ids("polyu") == [("test", f"{key}_{crop}", key, "PolyU") for crop in (1, 2)]
    (raw.folder / "p.zip").unlink()
    part = "MCWNNM-ICCV2017-aa3440/Real_ccnoise_denoised_part/5dmark3_iso3200_1"
    raw.put(
        {"c.zip": mini.as_zip(mini.images(f"{part}_{r}.png" for r in ("mean", "ours", "real")))}
    )
    store = raw.prepare("cc15")["test"]
    assert store.ids == ["5dmark3_iso3200_1"]
    assert_array_equal(store.image("degraded", 0), mini.pixels(f"{part}_real.png"))


def test_dnd(raw: Raw) -> None:
    store = raw.put({"dnd_2017.zip": mini.dnd()}).prepare("dnd")["test"]
    assert store.ids == ["0001_01", "0001_02", "0002_01", "0002_02"]
    assert not store.has("clean", 0)
    assert_array_equal(store.image("degraded", 0), mini.pixels("dnd 1")[0:16, 1:17])
    assert_array_equal(store.image("degraded", 3), mini.pixels("dnd 2")[19:35, 29:45])


def test_real_internet(raw: Raw) -> None:
    files = mini.images(["real/rain-1.jpg", "real/more/rain-2.png"])
    store = raw.put({"r.zip": mini.as_zip(files)}).prepare("real_internet")["test"]
    assert store.ids == ["rain-1", "rain-2"] and not store.has("clean", 0)


# Unpacked already, in the user's own folder


UNPACKED = {
    "sidd": ({"a.zip": mini.sidd_medium("SIDD_Medium_Srgb/Data/")}, "SIDD_Medium_Srgb/Data"),
    "sidd small": ({"a.zip": mini.sidd_small()}, "SIDD_Small_sRGB_Only"),
    "spa kaggle": ({"a.zip": mini.spa_kaggle()}, "spa"),
    "spa test": ({"a.zip": mini.spa_test()}, "real_test_1000"),
    "spa train": ({"a.zip": mini.spa_train()}, ""),
    "realblur": ({"a.tar.gz": mini.as_tar_gz(mini.realblur())}, ""),
    "realblur flat": ({"a.zip": mini.realblur_flat()}, "test/RealBlur_J"),
    "dfwb": ({"a.zip": mini.as_zip(mini.images(mini.DFWB["DIV2K.zip"]))}, "DIV2K"),
    "rain13k": ({"a.zip": mini.rain13k()}, "train/Rain13K"),
    "gopro": ({"a.zip": mini.gopro_official()}, "train"),
    "gopro restormer": ({"a.zip": mini.gopro_restormer()}, "train"),
    "coco": ({"a.zip": mini.as_zip(mini.images(["train2017/000000000009.jpg"]))}, "train2017"),
    "polyu": (
        {"a.zip": mini.as_zip(mini.images(f"CroppedImages/C_{r}.JPG" for r in ("real", "mean")))},
        "CroppedImages",
    ),
    "cc15": ({"a.zip": mini.as_zip(mini.images(f"p/5_{r}.png" for r in ("real", "mean")))}, "p"),
    "dnd": ({"a.zip": mini.dnd()}, "dnd_2017"),
    "real_internet": ({"a.zip": mini.as_zip(mini.images(["r/1.jpg"]))}, "r"),
}
"""Archives of each kind, and the folder of what they unpack to that one would name."""


def unpacked(name: str, folder: Path) -> None:
    for file, content in UNPACKED[name][0].items():
        (folder.parent / file).write_bytes(content)
        shutil.unpack_archive(folder.parent / file, folder)


def test_every_kind_has_an_unpacked_layout() -> None:
    assert {name.split()[0] for name in UNPACKED} == set(KINDS)


@pytest.mark.parametrize("name", UNPACKED)
def test_an_unpacked_folder_in_either_spelling(raw: Raw, tmp_path: Path, name: str) -> None:
    """The folder that holds the known one, or that one itself."""
    kind, inner = name.split()[0], UNPACKED[name][1]
    unpacked(name, tmp_path / "mine")
    found = []
    for location in (tmp_path / "mine", tmp_path / "mine" / inner):
        download(raw.settings(kind, location=str(location)), raw.folder)
        stores = raw.prepare(kind)
        found.append({split: store.ids for split, store in stores.items() if store.ids})
    assert found[0] == found[1] and found[0]


def test_a_folder_in_the_working_directory(
    raw: Raw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked("rain13k", tmp_path / "mine")
    monkeypatch.chdir(tmp_path / "mine" / "train" / "Rain13K")
    for location in (".", "input/.."):
        download(raw.settings("rain13k", location=location), raw.folder)
        assert len(raw.prepare("rain13k")["synthetic"]) == 3


@pytest.mark.parametrize("name", ["rain13k", "realblur", "gopro"])
def test_an_archive_beside_what_was_unpacked_of_it_is_told(
    raw: Raw, tmp_path: Path, name: str
) -> None:
    kind, inner = name.split()[0], UNPACKED[name][1]
    unpacked(name, tmp_path / "mine")
    (file,) = UNPACKED[name][0]
    for folder in (tmp_path / "mine", tmp_path / "mine" / inner):
        shutil.copy(tmp_path / file, folder)
        with pytest.raises(UserError, match=rf"{file}: its \S+ is there unpacked too, as .*/mine"):
            download(raw.settings(kind, location=str(folder)), raw.folder)
        (folder / file).unlink()


def test_an_unknown_layout_is_told_with_the_known_one(raw: Raw) -> None:
    raw.put({"train.zip": mini.as_zip(mini.images(["other/input/1.png"]))})
    assert raw.refused("rain13k") == (
        f"set: {raw.folder} (train.zip) holds no image of Rain13K (found: nothing of a known"
        " layout). Expected: train/Rain13K/{input,target}/N.{png,jpg}."
    )


# The settings of pipeline/conf


def test_published_numbers(published: dict[str, FetchedSource]) -> None:
    """Numbers of the data sets' own papers and pages."""
    assert {name: source.expected_images for name, source in published.items()} == {
        "sidd": {"real": 320, "test": 1280},
        "spa": {"real": 638_492, "test": 1000},
        "realblur": {"real": 3758, "test": 980},
        "dfwb": {"synthetic": 800 + 2650 + 4744 + 400},
        "rain13k": {"synthetic": 13_711},
        "gopro": {"synthetic": 2103},
        "coco": {"synthetic": 118_287},
        "polyu": {"test": 100},
        "cc15": {"test": 15},
        "dnd": {"test": 1000},
        "real_internet": {"test": 147},
    }
    crops = {name: source.crops for name, source in published.items()}
    assert crops["sidd"] == Crops(None, Crop(512, 384, 0), None)
    assert crops["dfwb"] == Crops(Crop(512, 416, 800), None, None)
    assert crops["gopro"] == Crops(Crop(512, 256, 0), None, None)


def test_checksums_and_addresses_are_well_formed(published: dict[str, FetchedSource]) -> None:
    for name, source in published.items():
        assert source.kind == name and source.licence and source.page.startswith("http")
        for archive in source.archives.values():
            for version in archive.versions:
                assert version.sha256 is None or len(version.sha256) == 64
                assert version.md5 is None or len(version.md5) == 32
                assert version.urls and all(url.startswith("http") for url in version.urls)


# Numbers, limits, tables


def test_numbers_are_held_against_the_published_ones(
    raw: Raw, published: dict[str, FetchedSource]
) -> None:
    raw.put({"a.zip": mini.sidd_medium(), "v.zip": mini.sidd_validation()})
    with pytest.raises(UserError, match=r"set: expected 320 images of the split 'real', found 4;"):
        prepare(published["sidd"], raw.folder, raw.prepared)
    right = dataclasses.replace(published["sidd"], expected_images={"real": 4, "test": 6})
    prepare(right, raw.folder, raw.prepared)
    wrong = dataclasses.replace(right, expected_images={"real": 4, "test": 1280})
    with pytest.raises(UserError, match=r"1280 images of the split 'test', found 6.*set\.expected"):
        prepare(wrong, raw.folder, raw.prepared)


def test_max_images_takes_more_when_it_may(
    raw: Raw, settings: Callable[..., FetchedSource]
) -> None:
    raw.put({"train.zip": mini.rain13k(20)})
    listed = raw.listed("rain13k")
    kept = [{p.id for p in limited(settings("rain13k", max_images=n), listed)}
            for n in (3, 10, 20, 99)]  # fmt: skip
    assert [len(ids) for ids in kept] == [3, 10, 20, 20]
    assert kept[0] < kept[1] < kept[2]
    assert raw.prepare("rain13k", max_images=3)["synthetic"].ids == sorted(kept[0])


def test_max_gib_counts_packed_pixels(raw: Raw) -> None:
    raw.put({"train.zip": mini.rain13k(20)})
    pair = 2 * 40 * 48 * 3
    store = raw.prepare("rain13k", max_gib=(7.5 * pair) / 2**30)["synthetic"]
    assert len(store) == 7


def test_max_gib_counts_the_crops_that_are_packed(raw: Raw) -> None:
    """40 x 48 in squares of 32 every 24 are four: 4 x 32 x 32 pixels instead of 40 x 48."""
    raw.put({"train.zip": mini.rain13k(20)})
    crops = Crops(Crop(32, 24, 0), None, None)
    pair = 2 * 4 * 32 * 32 * 3
    store = raw.prepare("rain13k", crops=crops, max_gib=(7.5 * pair) / 2**30)["synthetic"]
    assert len(store) == 7 * 4


def test_limits_are_filled_with_images_that_can_be_read(raw: Raw) -> None:
    bad = {f"input_{number}_": b"no image" for number in range(1, 10)}
    raw.put({"a.zip": changed(mini.rain13k(20), **bad)})
    for limit in ({"max_images": 11}, {"max_gib": (11.5 * 2 * 40 * 48 * 3) / 2**30}):
        assert len(raw.prepare("rain13k", skip_unreadable=True, **limit)["synthetic"]) == 11


def test_small_training_images_are_left_out_and_counted(
    raw: Raw, capfd: pytest.CaptureFixture[str]
) -> None:
    sizes = {1: (40, 48), 2: (39, 48), 3: (48, 39), 4: (60, 40), 5: (20, 20)}
    files = {
        f"train/Rain13K/{role}/{n}.png": mini.image(f"{role}{n}.png", *size)
        for n, size in sizes.items()
        for role in ("input", "target")
    }
    raw.put({"train.zip": mini.as_zip(files)})
    assert raw.prepare("rain13k", min_side=40)["synthetic"].ids == ["1", "4"]
    assert "set: left out 3 of 5 images with a side below 40 pixels" in capfd.readouterr().err
    assert len(raw.prepare("rain13k", min_side=40, max_images=2)["synthetic"]) == 2, "filled"
    capfd.readouterr()
    assert len(raw.prepare("rain13k")["synthetic"]) == 5
    assert "left out" not in capfd.readouterr().err


def test_small_test_images_are_kept(raw: Raw) -> None:
    raw.put({"spadata.zip": mini.spa_kaggle()})
    stores = raw.prepare("spa", min_side=41)
    assert (len(stores["real"]), len(stores["test"])) == (0, 3)


def test_limits_leave_the_test_images(raw: Raw) -> None:
    raw.put({"a.zip": mini.sidd_medium(), "v.zip": mini.sidd_validation()})
    stores = raw.prepare("sidd", max_images=1, max_gib=1e-9)
    assert len(stores["real"]) == 0 and len(stores["test"]) == 6


def test_the_table_names_the_files(raw: Raw) -> None:
    raw.put({"train.zip": mini.gopro_restormer()}).prepare("gopro")
    rows = list(csv.DictReader(io.StringIO((raw.prepared / "pairs.csv").read_text())))
    assert rows[0] == {
        "id": "GOPR0372_07_00/000047", "scene": "GOPR0372_07_00", "split": "synthetic",
        "data_set": "GoPro train", "degraded": "train/input/GOPR0372_07_00-000047.png",
        "clean": "train/target/GOPR0372_07_00-000047.png", "height": "40", "width": "48",
    }  # fmt: skip


@pytest.mark.parametrize("ahead", [1, 10_000, 2**28])
@pytest.mark.parametrize("threads", [1, 5])
def test_the_bytes_do_not_depend_on_threads_or_memory(
    raw: Raw, ahead: int, threads: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    raw.put({"train.zip": mini.rain13k(12)})
    crops = Crops(Crop(16, 12, 0), None, None)
    raw.prepare("rain13k", crops=crops)
    names = ("synthetic.h5", "real.h5", "truth.h5", "test.h5", "pairs.csv")
    first = [(raw.prepared / name).read_bytes() for name in names]
    monkeypatch.setattr(streaming, "AHEAD_BYTES", ahead)
    monkeypatch.setattr(preparing, "working_threads", lambda: threads)
    raw.prepare("rain13k", crops=crops)
    assert [(raw.prepared / name).read_bytes() for name in names] == first


# The truth of unlabeled photographs

BOUND = "target_supervised"
TRUTHS: dict[str, dict[str, bytes]] = {
    "sidd": {"a.zip": mini.sidd_medium()},
    "spa": {"a.zip": mini.spa_train(), "real_world.txt": mini.spa_list()},
    "realblur": {"RealBlur.tar.gz": mini.as_tar_gz(mini.realblur())},
}


def clean_name(kind: str, name: str) -> str:
    """Return the archive's clean partner of a photograph."""
    if kind == "sidd":
        scene, shot = name.split("/")
        return f"train/{scene}/{scene[:4]}_GT_SRGB_{shot}.PNG"
    if kind == "spa":
        return f"real_world_gt/{name}.png"
    scene, k = name.removeprefix("J/").split("-")
    return f"{mini.BLUR_SETS['J']}/{scene}/gt/gt_{k}.png"


@pytest.mark.parametrize("kind", TRUTHS)
def test_truth_is_packed_for_a_bound_alone(raw: Raw, kind: str) -> None:
    """In a file of its own: what all methods see has the same bytes with it and without."""
    raw.put(TRUTHS[kind])
    crops = Crops(None, Crop(32, 24, 0), None)
    raw.prepare(kind, crops=crops, truth_for=None)
    without = (raw.prepared / "real.h5").read_bytes()
    assert len(ImageStore(raw.prepared / "truth.h5")) == 0
    real = raw.prepare(kind, crops=crops, truth_for=BOUND)["real"]
    assert (raw.prepared / "real.h5").read_bytes() == without
    truth = ImageStore(raw.prepared / "truth.h5")
    assert truth.ids == real.ids and truth.scenes == real.scenes and len(truth) == 16
    assert not any(truth.has("degraded", index) for index in range(len(truth)))
    for index, name in enumerate(truth.ids):
        photograph, top, left = name.rsplit("_", 2)
        expected = mini.pixels(clean_name(kind, photograph))[int(top) :, int(left) :][:32, :32]
        assert_array_equal(truth.image("clean", index), expected)
    rows = csv.DictReader(io.StringIO((raw.prepared / "pairs.csv").read_text()))
    named = {row["id"]: row["clean"] for row in rows if row["split"] == "real"}
    assert named == {name: clean_name(kind, name) for name in named} and len(named) == 4


def test_photographs_may_share_a_truth(raw: Raw) -> None:
    rain = [f"real_world/000/a_{number}.png" for number in (1, 2, 3)]
    truths = ["real_world_gt/t/b.png", "real_world_gt/t/b.png", "real_world_gt/t/c.png"]
    listing = "".join(f"/{a} /{b}\n" for a, b in zip(rain, truths, strict=True)).encode()
    files = mini.images({*rain, *truths})
    raw.put({"a.zip": mini.as_zip(files), "real_world.txt": listing})
    raw.prepare("spa", truth_for=BOUND)
    store = ImageStore(raw.prepared / "truth.h5")
    for index, name in enumerate(truths):
        assert_array_equal(store.image("clean", index), mini.pixels(name))


def test_a_limit_takes_the_same_photographs_with_their_truth(raw: Raw) -> None:
    raw.put({"spadata.zip": mini.spa_kaggle()})
    limit = 2.5 * 40 * 48 * 3 / 2**30
    ids = [raw.prepare("spa", max_gib=limit, truth_for=who)["real"].ids for who in (None, BOUND)]
    assert ids[0] == ids[1] and len(ids[0]) == 2


def test_a_truth_of_another_size_is_told_to_who_needs_it(raw: Raw) -> None:
    small = mini.image("small.png", 20, 24)
    raw.put({"a.zip": changed(mini.sidd_medium(), **{"0001_GT_SRGB_010": small})})
    assert len(raw.prepare("sidd", truth_for=None)["real"]) == 4
    message = raw.refused("sidd", truth_for=BOUND)
    assert f"SIDD: '{mini.SCENES[0]}/010' is (40, 48) (height, width) degraded but" in message


def test_photographs_without_truth_are_no_pairs(settings: Callable[..., FetchedSource]) -> None:
    alone = Photograph("x/1", "real", "x", "SIDD", None, None)
    assert chosen(settings("sidd", truth_for=None), Path("sidd"), [alone]) == [alone]
    with pytest.raises(UserError, match=r"'x/1' has no clean partner, which target_supervised"):
        chosen(settings("sidd", truth_for=BOUND), Path("sidd"), [alone])


def test_memory_hardly_grows_with_the_number_of_images(raw: Raw) -> None:
    """Beyond the 512 that may wait 1.5 kB a pair were seen, 4.4 kB with all of them waiting."""
    content = mini.image("x.png", 8, 8)
    peaks = []
    for pairs in (1200, 600, 1200):  # at first Python's table of interned strings may grow too
        folders = [f"real_world{truth}/000/000-1" for truth in ("", "_gt")]
        names = [f"{folder}/{number}.png" for number in range(pairs) for folder in folders]
        raw.put({"real_world.zip": mini.as_zip(dict.fromkeys(names, content))})
        tracemalloc.start()
        raw.prepare("spa", data_sets=("SPA train",))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[2] - peaks[1] < 2500 * 600


# What can be wrong with them


def changed(archive: bytes, **changes: bytes | None) -> bytes:
    """Return a zip with members of these endings replaced, or left out where there is None."""
    files = {}
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        for name in opened.namelist():
            if name.endswith("/") or "__MACOSX" in name:
                continue
            key = next((k for k in changes if k in name.replace("/", "_").replace(".", "_")), None)
            content = opened.read(name) if key is None else changes[key]
            if content is not None:
                files[name] = content
    return mini.as_zip(files)


@pytest.mark.parametrize(
    ("kind", "files", "message"),
    [
        (
            "sidd",
            {"a.zip": changed(mini.sidd_medium(), NOISY_SRGB_011=None)},
            "no degraded partner",
        ),
        ("sidd", {"a.zip": changed(mini.sidd_medium(), GT_SRGB_010=None)}, "no clean partner"),
        ("sidd", {"v.zip": changed(mini.sidd_validation(), Gt=None)}, "Gt.*missing beside"),
        ("sidd", {"v.zip": changed(mini.sidd_validation(), Gt=b"no")}, "no MATLAB file"),
        ("sidd", {"v.zip": mini.sidd_validation()[:-9]}, "v.zip: damaged"),
        (
            "sidd",
            {
                "v.zip": changed(
                    mini.sidd_validation(),
                    Gt=mini.mat("ValidationGtBlocksSrgb", np.zeros((2, 3, 8, 8), np.uint8)),
                )
            },
            r"as uint8 \(scenes, blocks, height, width, 3\), found uint8",
        ),
        (
            "sidd",
            {"v.zip": changed(mini.sidd_validation(), Gt=mini.mat("other", np.zeros(3)))},
            "found no such variable",
        ),
        (
            "sidd",
            {
                "v.zip": changed(
                    mini.sidd_validation(),
                    Gt=mini.mat("ValidationGtBlocksSrgb", mini.blocks("Gt", 1)),
                )
            },
            "blocks of two shapes",
        ),
        ("rain13k", {"a.zip": changed(mini.rain13k(), input_2=None)}, "'2' has no degraded"),
        (
            "rain13k",
            {"a.zip": changed(mini.rain13k(), input_2=mini.image("x.png", 41, 48))},
            r"'2' is \(41, 48\) \(height, width\) degraded but \(40, 48\) clean",
        ),
        (
            "rain13k",
            {"a.zip": changed(mini.rain13k(), input_2=mini.image("x.png")[:900])},
            "input/2.png: damaged image",
        ),
        ("rain13k", {"a.zip": changed(mini.rain13k(), target_1=b"")}, "target/1.jpg: not an image"),
        ("rain13k", {"a.zip": mini.rain13k(), "b.zip": mini.rain13k(1)}, "both degraded images"),
        ("gopro", {"a.zip": mini.rain13k()}, "holds no image of GoPro train .*nothing of a known"),
        ("gopro", {"a.zip": b"PK"}, "a.zip: damaged"),
        ("realblur", {"a.tar": mini.as_tar(mini.realblur())[:-40_000]}, "a.tar: damaged"),
        ("realblur", {"a.tar.gz": mini.as_tar_gz(mini.realblur())[:-99]}, "a.tar.gz: damaged"),
        (
            "realblur",
            {
                "a.tar": mini.as_tar(
                    {k: v for k, v in mini.realblur().items() if "scene003/gt/gt_1" not in k}
                )
            },
            "RealBlur_J_train_list.txt, line 3: expected '<truth> <blurred>'",
        ),
        ("dnd", {"a.zip": changed(mini.dnd(), info_mat=None)}, "info.mat is missing"),
        ("dnd", {"a.zip": changed(mini.dnd(), info_mat=b"x" * 99)}, "not laid out as DND"),
        ("dnd", {"a.zip": changed(mini.dnd(), srgb_0002=b"x" * 99)}, "0002.mat: not laid out"),
        ("spa", {"r.zip.00": b"x", "r.zip.02": b"x"}, "part 01 of r.zip is missing"),
        (
            "spa",
            dict(list(mini.in_parts(mini.spa_train(), "r.zip", 3).items())[:2]),
            "found the parts 00 to 01 of r.zip, of which the last is missing",
        ),
        ("real_internet", {"a.zip": mini.as_zip(mini.images(["a/1.png", "b/1.png"]))}, "are both"),
        ("coco", {}, "holds no image"),
    ],
)
def test_what_is_wrong_is_told(raw: Raw, kind: str, files: dict[str, bytes], message: str) -> None:
    told = raw.put(files).refused(kind)
    assert re.search(message, told), told
    assert [path.name for path in raw.folder.parent.iterdir()] == ["set"], (
        "nothing unpacked is left"
    )


@pytest.mark.parametrize("kind", ["sidd", "spa", "realblur", "rain13k", "gopro", "cc15", "polyu"])
@pytest.mark.parametrize("side", ["degraded", "clean"])
def test_a_side_that_is_missing_as_a_whole_is_told(raw: Raw, kind: str, side: str) -> None:
    """Nothing but one side of the pairs lies there."""
    archives = {
        "sidd": (mini.sidd_medium(), {"degraded": "NOISY", "clean": "GT"}),
        "spa": (mini.spa_test(), {"degraded": "/rain/", "clean": "/gt/"}),
        "realblur": (mini.realblur_flat(), {"degraded": "/input/", "clean": "/target/"}),
        "rain13k": (mini.rain13k(), {"degraded": "/input/", "clean": "/target/"}),
        "gopro": (mini.gopro_restormer(), {"degraded": "/input/", "clean": "/target/"}),
        "cc15": (
            mini.as_zip(mini.images(f"a_{role}.png" for role in ("real", "mean"))),
            {"degraded": "_real", "clean": "_mean"},
        ),
        "polyu": (
            mini.as_zip(mini.images(f"CroppedImages/a_{role}.JPG" for role in ("real", "mean"))),
            {"degraded": "_real", "clean": "_mean"},
        ),
    }
    content, marks = archives[kind]
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        names = [name for name in opened.namelist() if not re.search("/$|__MACOSX", name)]
        kept = {name: opened.read(name) for name in names if marks[side] in name}
    assert kept
    lacking = "clean" if side == "degraded" else "degraded"
    assert f"has no {lacking} partner" in raw.put({"a.zip": mini.as_zip(kept)}).refused(kind)


def test_a_scene_in_two_splits_is_told(raw: Raw) -> None:
    files = mini.realblur()
    lists = {name: content for name, content in files.items() if name.endswith(".txt")}
    files["RealBlur_J_test_list.txt"] += lists["RealBlur_J_train_list.txt"].splitlines(True)[0]
    message = raw.put({"a.tar": mini.as_tar(files)}).refused("realblur")
    assert "scene 'J/scene001' is in the splits" in message


def test_one_bad_image_among_many_can_be_left_out(
    raw: Raw, capfd: pytest.CaptureFixture[str]
) -> None:
    bad = mini.image("x.png")[:900]
    raw.put({"a.zip": changed(mini.rain13k(20), input_8=bad, target_12=b"")})
    store = raw.prepare("rain13k", skip_unreadable=True)["synthetic"]
    assert len(store) == 18 and not {"8", "12"} & set(store.ids)
    told = capfd.readouterr().err
    assert "left out '8': train/Rain13K/input/8.png: damaged" in told
    assert "left out 2 of 20 images" in told


def test_a_bad_test_image_is_never_left_out(raw: Raw) -> None:
    raw.put({"a.zip": changed(mini.spa_kaggle(), test_rain_6=b"no image")})
    assert "test/rain/6.png: not an image" in raw.refused("spa", skip_unreadable=True)


def test_no_tool_for_rar_is_told(raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    raw.put({"exploration_database_and_code.rar": b"Rar!\x1a\7\0" + bytes(99)})
    assert "unpacking rar needs one of unrar, 7z" in raw.refused("dfwb")


def test_rar_is_unpacked_by_a_tool(
    raw: Raw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive is made by hand, the tool stands for unrar: neither can be had everywhere."""
    name = "exploration_database_and_code/pristine_images/00001.bmp"
    content = mini.image(name)
    raw.put({"w.rar": rar_stored({name: content})})
    files = tmp_path / "files" / name
    files.parent.mkdir(parents=True)
    files.write_bytes(content)
    tool = tmp_path / "bin" / "unrar"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\nfor last; do :; done\ncp -r {tmp_path}/files/* "$last"\n')
    tool.chmod(tool.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    store = raw.prepare("dfwb")["synthetic"]
    assert_array_equal(store.image("clean", 0), mini.pixels(name))
    files.write_bytes(content[:-1])  # the tool gives another size than the archive declares
    with pytest.raises(UserError, match=r"w.rar: unrar unpacked 1 of 1 files as declared"):
        raw.prepare("dfwb")
    raw.put({"w.rar": rar_stored({"../../evil.bmp": content})})
    with pytest.raises(UserError, match=r"'../../evil.bmp' lies outside of the archive"):
        raw.prepare("dfwb")


def rar_stored(files: dict[str, bytes]) -> bytes:
    """Return a RAR archive of version 4 with stored files (technote.txt of unrar)."""

    def block(kind: int, flags: int, body: bytes) -> bytes:
        head = struct.pack("<BHH", kind, flags, 7 + len(body)) + body
        return struct.pack("<H", zlib.crc32(head) & 0xFFFF) + head

    content = b"Rar!\x1a\x07\x00" + block(0x73, 0, bytes(6))
    for name, data in files.items():
        raw_name = name.replace("/", "\\").encode()
        about = struct.pack("<IIBIIBBHI", len(data), len(data), 3, zlib.crc32(data), 0x50210000,
                            20, 0x30, len(raw_name), 0o100644)  # fmt: skip
        content += block(0x74, 0x8000, about + raw_name) + data
    return content + block(0x7B, 0x4000, b"")


# Killed


JOB = """
import sys, time
from pathlib import Path
import pipeline.sources.archives.unpacking as unpacking
from pipeline.config.read import check
from pipeline.datasets.prepare import prepare
from pipeline.sources import photographs
from pipeline.config import compose
from omegaconf import OmegaConf
import dataclasses
from pipeline.config.sources import Crop, Crops

source = check(OmegaConf.to_container(OmegaConf.load("params.yaml"))).sources["realblur"]
source = dataclasses.replace(
    source, expected_images=None, lists_md5=None,
    crops=Crops(None, Crop(16, 2, 0), Crop(16, 2, 0)),
)
# slow enough to be hit in the middle
decode = photographs.decode
unpacking._CHUNK = 4096
read = unpacking.gzip.GzipFile.read
unpacking.gzip.GzipFile.read = lambda self, n=-1: (time.sleep(0.02), read(self, n))[1]
photographs.decode = lambda *given: (time.sleep(0.15), decode(*given))[1]
print("ready", flush=True)
prepare(source, Path("raw/set"), Path("prepared/set"))
"""


def test_killed_while_unpacking_and_packing_it_ends_with_the_same_bytes(
    raw: Raw, tmp_path: Path
) -> None:
    compose(["sources=[skimage,realblur]"], tmp_path / "params.yaml")
    raw.put({"RealBlur.tar.gz": mini.as_tar_gz(mini.realblur())})
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", JOB]

    def started() -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, text=True, stdout=-1, stderr=-3
        )
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        return process

    def hashes() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in raw.prepared.iterdir()
                if not path.name.startswith(".")}  # fmt: skip

    process, begun = started(), time.monotonic()
    assert process.wait() == 0
    duration, expected = time.monotonic() - begun, hashes()
    shutil.rmtree(raw.prepared)
    generator, seen = random.Random(0), set()
    for moment in range(12):
        process = started()
        time.sleep((moment + generator.uniform(0, 1)) / 14 * duration)
        seen.add("unpacking" if not raw.prepared.exists() else "packing")
        process.kill()
        process.wait()
        whole = hashes() if raw.prepared.exists() else {}
        assert all(expected[name] == content for name, content in whole.items())
    assert seen == {"unpacking", "packing"}
    assert started().wait() == 0
    assert hashes() == expected
    assert [path.name for path in raw.folder.parent.iterdir()] == ["set"]
    assert not [path for path in raw.prepared.iterdir() if path.name.startswith(".")]
