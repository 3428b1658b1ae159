"""The disk that data sets take: against arithmetic by hand, and what the documents say of it."""

import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.compose import compose
from pipeline.config.params import Params
from pipeline.config.read import read_params
from pipeline.config.sources import FetchedSource
from pipeline.dry_run.disk import disk_of, disks, packed_bytes, summary, task_bytes
from tests.helpers import preloaded

ROOT = Path(__file__).parents[2]
CROP = 512 * 512 * 3


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Params]:
    def make(*overrides: str) -> Params:
        path = tmp_path_factory.mktemp("disk") / "params.yaml"
        compose(list(overrides), path)
        return read_params(path)

    return make


@pytest.fixture(scope="module")
def paper(composed: Callable[..., Params]) -> Params:
    return composed("preset=paper")


def source(params: Params, name: str, **changes: Any) -> FetchedSource:
    found = params.sources[name]
    assert isinstance(found, FetchedSource)
    return replace(found, **changes)


def test_packed_images_by_hand(paper: Params) -> None:
    """Squares of the literature: 30,608 of SIDD, eight a frame of GoPro."""
    sidd, spa, gopro = (source(paper, name) for name in ("sidd", "spa", "gopro"))
    assert packed_bytes(sidd, "real") == 30_608 * CROP
    assert packed_bytes(sidd, "test") == 1280 * 256 * 256 * 3 * 2
    assert packed_bytes(sidd, "synthetic") == 0
    assert packed_bytes(spa, "real") == 638_492 * 256 * 256 * 3
    assert packed_bytes(spa, "test") == 1000 * 512 * 512 * 3 * 2
    assert packed_bytes(gopro, "synthetic") == 16_824 * CROP * 2


def test_limits_shorten_the_training_splits(paper: Params) -> None:
    few = source(paper, "spa", max_images=50_000)
    assert packed_bytes(few, "real") == pytest.approx(50_000 * 256 * 256 * 3)
    assert packed_bytes(few, "test") == 1000 * 512 * 512 * 3 * 2
    assert packed_bytes(source(paper, "spa", max_gib=20.0), "real") == 20 * 2**30
    assert packed_bytes(source(paper, "spa", max_gib=2e4), "real") == 638_492 * 256 * 256 * 3
    assert packed_bytes(source(paper, "sidd", max_images=10**6), "real") == 30_608 * CROP


def test_a_bound_doubles_the_real_photographs(composed: Callable[..., Params]) -> None:
    """Beyond the limit, which does not count their truth."""
    params = composed("preset=paper", "+experiment=baselines")
    sidd, spa, gopro = (source(params, name) for name in ("sidd", "spa", "gopro"))
    assert packed_bytes(sidd, "real") == 2 * 30_608 * CROP
    assert packed_bytes(replace(spa, max_gib=20.0), "real") == 2 * 20 * 2**30
    assert packed_bytes(spa, "test") == 1000 * 512 * 512 * 3 * 2
    assert packed_bytes(gopro, "synthetic") == 16_824 * CROP * 2


def test_archives_are_those_of_the_settings(paper: Params) -> None:
    assert disk_of(source(paper, "sidd")).archives == 13_233_785_522 + 461_780_640
    assert disk_of(source(paper, "realblur")).archives == 12.2e9
    dfwb = disk_of(source(paper, "dfwb"))
    assert dfwb.archives == 3.5e9
    assert dfwb.unknown == ("Flickr2K.zip", "WaterlooED.zip", "BSD400.zip")


def test_the_sums(paper: Params) -> None:
    found = disks(paper)
    archives = sum(disk.archives for disk in found.values()) / 1e9
    packed = sum(sum(disk.packed.values()) for disk in found.values()) / 1e9
    (sums, unknown) = summary(paper)
    assert sums == (
        f"Disk: archives {archives:.0f} GB, packed {packed:.0f} GB; in all"
        f" {archives + packed:.0f} GB where DVC links to its cache,"
        f" {2 * archives + 3 * packed:.0f} GB where it copies."
    )
    assert unknown == (
        "Of unknown size, and not in these sums: dfwb (Flickr2K.zip, WaterlooED.zip, BSD400.zip)."
    )


def test_a_task_of_one_source_counts_its_images_once(composed: Callable[..., Params]) -> None:
    params = composed("preset=paper", "tasks=[paper_denoise]", "sources=[dfwb,sidd]")
    found = disks(params)
    packed = sum(sum(disk.packed.values()) for disk in found.values())
    archives = sum(disk.archives for disk in found.values())
    assert f" {(2 * archives + 3 * packed) / 1e9:.0f} GB where it copies" in summary(params)[0]


def test_pairs_that_a_task_makes_and_stores(composed: Callable[..., Params]) -> None:
    """A degraded and a clean image of each copy; what is drawn as it is read takes nothing."""
    chosen = ["preset=paper", "tasks=[modelled_derain]", "sources=[dfwb,spa]"]
    for copies in (1, 3):
        params = composed(*chosen, f"tasks.derain.synthetic.copies={copies}")
        found = disks(params)
        archives = sum(disk.archives for disk in found.values())
        clean, spa = found["dfwb"].packed["synthetic"], sum(found["spa"].packed.values())
        pairs = 2 * copies * clean
        linked = archives + clean + spa + pairs
        assert f"drawn on them and stored {pairs / 1e9:.0f} GB; in all" in summary(params)[0]
        assert f" {linked / 1e9:.0f} GB where DVC links" in summary(params)[0]
        assert f" {(2 * linked + spa) / 1e9:.0f} GB where it copies" in summary(params)[0]


def test_other_clean_images_of_a_task_that_makes_pairs_are_its_own_too(
    composed: Callable[..., Params],
) -> None:
    """The unpaired ones are those of their source; the clean ones are in the pairs already."""
    params = composed("preset=paper", "tasks=[modelled_derain]", "sources=[dfwb,spa,coco]",
                      "tasks.derain.sources.unpaired=coco")  # fmt: skip
    found = disks(params)
    unchanged = found["coco"].packed["synthetic"] + sum(found["spa"].packed.values())
    assert task_bytes(params.tasks["derain"], params, found) == unchanged


def test_the_command(composed: Callable[..., Params]) -> None:
    command = [preloaded.python(), "-m", "pipeline", "disk"]
    done = subprocess.run([*command, "preset=paper"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"│ spa +│ 44.5 +│ 0.0 +│ 125.5 +│ 1.6 +│ 127.1 +│", done.stdout), done.stdout
    assert summary(composed("preset=paper"))[0] in done.stdout
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.startswith("No published data set among the sources")
    done = subprocess.run([*command, "preset=papr"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: ")


def test_documents_say_what_the_command_says(composed: Callable[..., Params]) -> None:
    """Of every preset that fetches, of smaller and other choices, and of every source."""
    text = " ".join((ROOT / "docs" / "paper.md").read_text().split())
    for overrides in (
        ["preset=paper", "+experiment=baselines"],
        ["preset=one_gpu", "tasks=[paper_denoise]", "sources=[dfwb,sidd_small]"],
        ["preset=one_gpu", "tasks=[modelled_derain,modelled_deblur]",
         "sources=[dfwb,spa,realblur]"],
        ["preset=paper", "sources.spa.max_images=50000"],
        ["preset=paper"],
    ):  # fmt: skip
        archives, *_, linked, copied = re.findall(r"(\d+) GB", summary(composed(*overrides))[0])
        assert f"{linked} GB" in text and f"{copied} GB" in text, overrides
    assert f"archives {archives}" in text
    cluster = (ROOT / "docs" / "cluster.md").read_text()
    _, _, linked, copied = re.findall(r"(\d+) GB", summary(composed("preset=paper"))[0])
    assert f"| {linked} GB, or {copied} GB where DVC cannot link |" in cluster
    assert summary(composed("preset=paper")) == summary(composed("preset=one_gpu"))
    table = (ROOT / "pipeline" / "conf" / "sources" / "README.md").read_text()
    alone = "~methods.target_supervised"  # the demo's bound would have the truth packed too
    for name in ("sidd", "dfwb", "spa", "rain13k", "realblur", "gopro", "coco", "polyu", "cc15",
                 "dnd", "real_internet"):  # fmt: skip
        disk = disk_of(source(composed(f"sources=[skimage,{name}]", alone), name))
        sizes = [f"{disk.archives / 1e9:.1f}", f"{sum(disk.packed.values()) / 1e9:.1f}"]
        cells = [size if float(size) else "" for size in sizes]
        (row,) = re.findall(rf"^\| `{name}` \|.*$", table, re.MULTILINE)
        assert [cell.strip() for cell in row.strip("|").split("|")[-2:]] == cells, name
    small = disk_of(source(composed("sources=[skimage,sidd_small]", alone), "sidd"))
    sizes = [f"{size / 1e9:.1f} GB" for size in (small.archives, sum(small.packed.values()))]
    assert f"(160, archives {sizes[0]}, packed {sizes[1]})" in " ".join(table.split())
