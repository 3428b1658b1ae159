"""What is known of the published data sets, written down a second time: a slip in YAML shows here.

Of every archive: its addresses, bytes, SHA-256 and MD5, or its rough size; the table has all of the
addresses, sizes and checksums of pipeline/conf/sources, and pipeline/conf/sources all of the table.
"""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from pipeline.config.compose import CONF, compose
from pipeline.config.read import check
from pipeline.config.sources import FetchedSource

HF = "https://huggingface.co/datasets/laoduanaaa/Image_Restoration_Datasets/resolve/main/"
DRIVE = "https://drive.google.com/uc?id="
BSDS = "http://www.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/BSR/BSR_bsds500.tgz"
WATERLOO = "http://ivc.uwaterloo.ca/database/WaterlooExploration/exploration_database_and_code.rar"
SIDD = "http://130.63.97.225/share/"
SIDD_MEDIUM = (13_234_744_070, None, "f95b4bc9ec1dd3fe4ebd61aeacad3991")
UNKNOWN = (None, None, None)

Known = tuple[int | None, str | None, str | None]
"""Bytes, SHA-256, MD5."""
FACTS: dict[str, dict[str, list[tuple[list[str], Known]]]] = {
    "sidd": {
        "train": [
            (
                [HF + "Denoising/Real/train.zip", DRIVE + "1UHjWZzLPGweA9ZczmV8lFSRcIxqiOVJw"],
                (13_233_785_522,
                 "aae8c8dd6643fc65454db60cc317d64accd8bea34187ea6c4aadcf772991446c", None),
            ),
            ([SIDD + "SIDD_Medium_Srgb.zip"], SIDD_MEDIUM),
        ],
        "validation": [
            (
                [HF + "Denoising/Real/test1.zip", DRIVE + "11vfqV-lqousZTuAit1Qkqghiv_taY0KZ"],
                (461_780_640,
                 "1139c32896697e960159ae845070751e58894ddf607ebfe8f6d83ef012e2fbff", None),
            )
        ],
    },
    "sidd_official": {
        "train": [([SIDD + "SIDD_Medium_Srgb.zip"], SIDD_MEDIUM)],
        "validation_noisy": [
            ([SIDD + "SIDD_Blocks/ValidationNoisyBlocksSrgb.mat"], (229_724_517, None, None))
        ],
        "validation_clean": [
            ([SIDD + "SIDD_Blocks/ValidationGtBlocksSrgb.mat"], (232_055_617, None, None))
        ],
    },
    "sidd_small": {
        "train": [
            ([SIDD + "SIDD_Small_sRGB_Only.zip"],
             (6_615_978_508, None, "796971867583bf14677dcae510e52538")),
        ],
    },
    "rain13k": {
        "train": [
            (
                [HF + "Deraining/train.zip", DRIVE + "14BidJeG4nSNuFNFDf99K-7eErCq4i47t"],
                (1_163_440_376,
                 "b999f61e7d7df1c2333d8a63a80b89fea2f75197dd9350428a174bcb9e193a5d", None),
            )
        ],
    },
    "gopro": {
        "train": [
            (
                [HF + "Deblurring/Motion_Deblurring/train.zip",
                 DRIVE + "1zgALzrLCC_tcXKu_iHQTHukKUVT1aodI"],
                (4_114_478_505,
                 "c7f7286cb0d36d00f56964ef4bf13f7115be9814ab26f89c8328d36615e3701c", None),
            )
        ],
    },
    "gopro_official": {"all": []},
    "realblur": {"all": [([DRIVE + "17v5Dj0M2WExgxJgsGpEWc-6UyhK1IWWK"], UNKNOWN)]},
    "spa": {"all": [(["https://www.kaggle.com/api/v1/datasets/download/leftthomas/spadata"],
                     UNKNOWN)]},
    "spa_official": {
        **{f"train_{part:02d}": [] for part in range(12)}, "list": [], "test": [],
    },
    "dfwb": {
        "div2k": [
            ([DRIVE + "13wLWWXvFkuYYVZMMAYiMVdSA7iVEf2fM"], UNKNOWN),
            (["http://data.vision.ee.ethz.ch/cvl/DIV2K/DIV2K_train_HR.zip"], UNKNOWN),
        ],
        "flickr2k": [
            ([DRIVE + "1J8xjFCrVzeYccD-LF08H7HiIsmi8l2Wn"], UNKNOWN),
            (["https://cv.snu.ac.kr/research/EDSR/Flickr2K.tar"],
             (None, None, "5d3f39443d5e9489bff8963f8f26cb03")),
        ],
        "waterloo": [
            ([DRIVE + "19_mCE_GXfmE5yYsm-HEzuZQqmwMjPpJr"], UNKNOWN),
            ([WATERLOO], UNKNOWN),
        ],
        "bsd400": [
            ([DRIVE + "1idKFDkAHJGAFDn1OyXZxsTbOSBx9GS8N"], UNKNOWN),
            ([BSDS], UNKNOWN),
        ],
    },
    "dfwb_joint": {"all": [([DRIVE + "1jPgG_URDQZ4kyXaMMXJ8AZ8jEErCdKuM"], UNKNOWN)]},
    "coco": {
        "train": [
            (["http://images.cocodataset.org/zips/train2017.zip"],
             (None, None, "cced6f7f71b7629ddf16f17bbcfab6b2")),
        ],
    },
    "coco_val": {
        "val": [
            (["http://images.cocodataset.org/zips/val2017.zip"],
             (None, None, "442b8da7639aecaf257c1dceb8ba8c80")),
        ],
    },
    "polyu": {
        "all": [
            (["https://codeload.github.com/csjunxu/PolyU-Real-World-Noisy-Images-Dataset/zip/refs/"
              "heads/master"], UNKNOWN),
        ],
    },
    "cc15": {
        "all": [
            (["https://codeload.github.com/csjunxu/MCWNNM-ICCV2017/zip/"
              "aa344066ea9cfbe66f27c921cabfafd9ec6e127d"], UNKNOWN),
        ],
    },
    "dnd": {"all": []},
    "real_internet": {"all": []},
}  # fmt: skip
FACTS["gopro_test"] = FACTS["gopro"] | {
    "test": [
        (
            [HF + "Deblurring/Motion_Deblurring/test1.zip",
             DRIVE + "1k6DTSHu4saUgrGTYkkZXTptILyG9RRll"],
            (2_371_837_449,
             "fb955bbd96b1521cff4686ae12624c47f5d9f9b24a0b49b575d2c03574accf73", None),
        )
    ]
}  # fmt: skip

FACTS["sidd_small"]["validation"] = FACTS["sidd"]["validation"]

ABOUT_GB = {
    "realblur": {"all": 12.2},
    "spa": {"all": 44.5},
    "spa_official": {f"train_{part:02d}": 3.7 for part in range(12)} | {"test": 0.455},
    "gopro_official": {"all": 8.8},
    "dfwb": {"div2k": 3.5},
}
COUNTS = {
    "sidd": {"real": 320, "test": 40 * 32},
    "sidd_small": {"real": 160, "test": 40 * 32},
    "spa": {"real": 638_492, "test": 1000},
    "realblur": {"real": 3758, "test": 980},
    "dfwb": {"synthetic": 800 + 2650 + 4744 + 400},
    "rain13k": {"synthetic": 13_711},
    "gopro": {"synthetic": 2103},
    "gopro_test": {"synthetic": 2103, "test": 1111},
    "coco": {"synthetic": 118_287},
    "coco_val": {"synthetic": 5000},
    "polyu": {"test": 100},
    "cc15": {"test": 15},
    "dnd": {"test": 1000},
    "real_internet": {"test": 147},
}
COUNTS |= {"dfwb_joint": COUNTS["dfwb"], "gopro_official": COUNTS["gopro_test"]}
COUNTS |= {f"{name}_official": COUNTS[name] for name in ("sidd", "spa")}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, FetchedSource]:
    """Every published data set that can be named in ``sources``."""
    path = tmp_path_factory.mktemp("conf") / "params.yaml"
    names = sorted(file.stem for file in (CONF / "sources").glob("*.yaml"))
    plain = [name for name in names if name in OmegaConf.load(CONF / "sources" / f"{name}.yaml")]
    found = {}
    for chosen in (plain, *([name] for name in names if name not in plain)):
        compose([f"sources=[{','.join(dict.fromkeys(('skimage', *chosen)))}]"], path)
        made = check(OmegaConf.to_container(OmegaConf.load(path))).sources
        for key, source in made.items():
            if isinstance(source, FetchedSource):
                found[key if chosen is plain else chosen[0]] = source
    return found


def test_addresses_sizes_and_checksums(sources: dict[str, FetchedSource]) -> None:
    found = {
        name: {
            key: [(list(v.urls), (v.size_bytes, v.sha256, v.md5)) for v in archive.versions]
            for key, archive in source.archives.items()
        }
        for name, source in sources.items()
    }
    assert found == FACTS


def test_rough_sizes(sources: dict[str, FetchedSource]) -> None:
    found = {
        name: {key: a.about_gb for key, a in source.archives.items() if a.about_gb is not None}
        for name, source in sources.items()
    }
    assert {name: sizes for name, sizes in found.items() if sizes} == ABOUT_GB


def test_numbers_of_images(sources: dict[str, FetchedSource]) -> None:
    assert {name: source.expected_images for name, source in sources.items()} == COUNTS
    for name, source in sources.items():
        if source.typical_images is not None:
            typical = source.typical_images.items()
            assert {split: sum(g.images for g in groups) for split, groups in typical} == (
                source.expected_images
            ), name


def test_lists(sources: dict[str, FetchedSource]) -> None:
    assert {name: s.lists_md5 for name, s in sources.items() if s.lists_md5} == {
        "realblur": {
            "RealBlur_J_train_list.txt": "06dffa49ba7376ee99510d21349a77c5",
            "RealBlur_J_test_list.txt": "ac7e8e7a83f4f2a81e24d4facee8a351",
        }
    }


def test_another_packing_differs_in_its_archives_alone(
    sources: dict[str, FetchedSource],
) -> None:
    """As ``sources=[sidd_official]`` in place of ``sources=[sidd]``: the same images and crops."""
    pairs = {"sidd_official": "sidd", "spa_official": "spa", "dfwb_joint": "dfwb"}
    for other, plain in pairs.items():
        for field in ("kind", "data_sets", "expected_images", "typical_images", "crops"):
            assert getattr(sources[other], field) == getattr(sources[plain], field), (other, field)


def test_no_file_name_stands_for_two_archives(sources: dict[str, FetchedSource]) -> None:
    for source in sources.values():
        names = [Path(archive.file) for archive in source.archives.values()]
        assert len(set(names)) == len(names)
