"""Published data sets: miniature archives in the exact layouts, paired, split, packed."""

import dataclasses
import hashlib
import io
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from numpy.testing import assert_array_equal
from omegaconf import OmegaConf

from pipeline.config.compose import compose
from pipeline.config.read import check
from pipeline.config.sources import Crop, Crops, FetchedSource
from pipeline.datasets import prepare as preparing
from pipeline.datasets.prepare import prepare
from pipeline.images.store import ImageStore
from pipeline.runtime.errors import UserError
from pipeline.sources import download, source_module
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
