"""What restore refuses: damaged and hostile files, wrong models and usage; tiles."""

import io
import os
import pickle
import shutil
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

from benchmarks import restore_large, seams
from pipeline.config.build import build
from pipeline.config.restorers import RestorerSettings
from pipeline.images.tiles import aligned_tiles
from pipeline.inference.model import InRange
from pipeline.inference.photographs.reading import open_photograph
from pipeline.inference.tiled import restore
from pipeline.models.build import build_restorer
from pipeline.models.weights import save_tensors
from pipeline.runtime.errors import UserError
from tests.inference import test_restore
from tests.inference.test_restore import (
    ROOT,
    SETTINGS,
    Desk,
    chunked,
    random_values,
    save_model,
    smooth,
    written,
)

desk = test_restore.desk


# Damaged and hostile


def encoded(kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    PillowImage.fromarray(random_values(60, 80, 3, 8)).save(file, kind, **options)
    return file.getvalue()


PAGES = {"save_all": True, "append_images": [PillowImage.new("RGB", (80, 60))]}


HOSTILE = {
    "header.png": (chunked(100_000, 100_000, b"IDAT" + zlib.compress(b"")), "10,000 megapixels"),
    "bomb.png": (
        chunked(20_000, 20_000, b"IDAT" + zlib.compress(bytes(10_000_000))),
        "400 megapixels, expected at most 250",
    ),
    "profile.png": (
        chunked(8, 8, b"iCCPx\0\0" + zlib.compress(bytes(100_000_000)),
                b"IDAT" + zlib.compress(b"")),
        "damaged image",
    ),
    "short.png": (encoded("PNG")[:5000], "damaged image"),
    "short.jpg": (encoded("JPEG")[:3000], "damaged image"),
    "short.tif": (encoded("TIFF", compression="tiff_lzw")[:5000], "image"),
    "cut.webp": (encoded("WEBP")[:1000], "image"),
    "empty.png": (b"", "empty file"),
    "text.png": (b"This is a text.\n", "not an image but text"),
    "as text.png": (encoded("PNG").replace(b"\r\n", b"\n"), "PNG that was copied as text"),
    "pointer.jpg": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "dicom.tif": (bytes(128) + b"DICM", "DICOM under the ending .tif"),
    "mif1.jpg": (b"\0\0\0\x1cftypmif1\0\0\0\0avifmif1miaf", "AVIF under the ending .jpg"),
    "phone app.png": (chunked(8, 8, b"CgBI\x50\0\x20\2"), "a part that is not read (CgBI)"),
    "odd.png": (chunked(8, 8, b"A\nB\x1b"), "a part that is not read (AB)"),
    "page.jpg": (b"<html></html>", "web page under the ending .jpg"),
    "moving.webp": (encoded("WEBP", **PAGES), "holds 2 pictures"),
    "code.png": (pickle.dumps(print), "not an image"),
    # what reads it would start Ghostscript with the program inside
    "script.png": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 80 60\n%%EndComments\nquit\n%%EOF\n",
        "PostScript under the ending .png",
    ),
    "format.png": (encoded("GIF"), "GIF under the ending .png; save it as TIFF, PNG or JPEG"),
}  # fmt: skip


def test_each_hostile_file_is_one_line_and_the_rest_goes_on(desk: Desk) -> None:
    for name, (content, _) in HOSTILE.items():
        (desk.folder / "in").mkdir(exist_ok=True)
        (desk.folder / "in" / name).write_bytes(content)
    desk.add("in/good.png", smooth(8, 8))
    desk.add("in/zz good.jpg", smooth(8, 8))
    for pipe in ("in/pipe.png", "fifo"):
        os.mkfifo(pipe)
    (desk.folder / "in" / "linked.png").symlink_to(desk.folder / "fifo")
    others = ("in/pipe.png", "in/linked.png", "fifo", "/dev/zero")
    given = ("in", "fifo", "/dev/zero", "nowhere.png", "none/*.png")
    lines = desk.run(*given, status=1).splitlines()
    for name in others:
        assert f"error: {name}: not a regular file; expected an image" in lines
    for name, (_, message) in HOSTILE.items():
        (line,) = (line for line in lines if line.startswith(f"error: in/{name}: "))
        assert message in line
    assert "error: nowhere.png: no such file or folder" in lines
    assert any(line.startswith("error: none/*.png: no image found") for line in lines)
    failed = len(HOSTILE) + len(others) + 2
    assert len(lines) == failed
    assert desk.summary.startswith("2 restored") and f"{failed} failed" in desk.summary
    assert sorted(path.name for path in desk.out.iterdir()) == ["good.png", "zz good.jpg"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP", "BMP"])
def test_bytes_changed_at_random_are_told_or_read(kind: str, tmp_path: Path) -> None:
    content = encoded(kind)
    generator = np.random.default_rng(0)
    path = tmp_path / "x"
    for _ in range(300):
        changed = bytearray(content)
        for place in generator.integers(0, min(len(content), 400), 4):
            changed[place] = generator.integers(256)
        path.write_bytes(bytes(changed))
        try:
            picture = open_photograph(path, "x", 1_000_000)
            picture.rows(slice(0, picture.form.height))
        except UserError as error:
            assert str(error).startswith("x: ") and "\n" not in str(error)


def test_16_bits_transparency_and_pages_that_a_format_cannot_hold_are_told(desk: Desk) -> None:
    written(desk.folder / "deep.png", random_values(8, 8, 3, 16))
    written(desk.folder / "clear.png", random_values(8, 8, 4, 8))
    said = desk.run("deep.png", "clear.png", "--format", "jpeg", status=1)
    assert "JPEG cannot hold 16 bits" in said and "JPEG cannot hold an alpha channel" in said
    PillowImage.new("CMYK", (8, 8)).save("print.jpg")
    PillowImage.new("I", (8, 8)).save("long.tif")
    said = desk.run("print.jpg", "long.tif", status=1)
    assert "print.jpg: CMYK colours" in said
    assert "long.tif: TIFF of signed integer values of 32 bits; save it with 8 or 16" in said


def test_links_are_followed_and_loops_told(desk: Desk) -> None:
    desk.add("in/a/x.png", smooth(8, 8))
    desk.add("elsewhere/y.png", smooth(8, 8))
    (desk.folder / "in" / "linked").symlink_to(desk.folder / "elsewhere")
    (desk.folder / "in" / "a" / "loop").symlink_to(desk.folder / "in")
    (desk.folder / "in" / "itself.png").symlink_to("itself.png")
    said = desk.run("in", status=1)
    assert "in/a/loop: leads to in, which is read already" in said
    assert "in/itself.png: " in said
    assert said.count("\n") == 2
    assert (desk.out / "a" / "x.png").is_file() and (desk.out / "linked" / "y.png").is_file()


def test_a_name_of_strange_characters_stays_one_line(desk: Desk) -> None:
    (desk.folder / "in").mkdir()
    (desk.folder / "in" / "a\nerror: b\x1b[31m.png").write_text("no image")
    (line,) = desk.run("in", status=1).splitlines()
    assert "\x1b" not in line and r"a\nerror: b\x1b[31m.png" in line


def as_without_rights(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command so that rights of files bind it, also where tests run as root."""
    prefix = []
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("no setpriv to give up root's rights")
        prefix = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    command = [*prefix, sys.executable, "-m", "pipeline", "restore", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment)


def test_folders_without_rights_are_told(desk: Desk) -> None:
    desk.add("in/a/x.png", smooth(8, 8))
    desk.add("in/closed/y.png", smooth(8, 8))
    desk.add("in/unreadable.png", smooth(8, 8)).chmod(0)
    (desk.folder / "in" / "closed").chmod(0)
    (desk.folder / "ours").mkdir(mode=0o555)
    try:
        done = as_without_rights(
            "in", "--model", "model.safetensors", "--out", "out", cwd=desk.folder
        )
        ours = as_without_rights(
            "in", "--model", "model.safetensors", "--out", "ours", cwd=desk.folder
        )
    finally:
        (desk.folder / "in" / "closed").chmod(0o755)
    assert done.returncode == 1, done.stderr
    assert sorted(done.stderr.splitlines()) == [
        "error: in/closed: cannot be read (Permission denied)",
        "error: in/unreadable.png: Permission denied (in/unreadable.png)",
    ]
    assert done.stdout.startswith("1 restored into out")
    assert ours.returncode == 2
    assert ours.stderr == "error: --out ours: cannot be written to (Permission denied)\n"


def test_a_full_disk_ends_it_and_leaves_no_half_file(desk: Desk, small_disk: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        desk.add(f"in/{name}", random_values(400, 500, 3, 8))
    desk.out = small_disk
    lines = desk.run("in", status=1).splitlines()
    assert "in/b.png: No space left on device" in lines[0]
    assert lines[1] == "error: disk full: the 1 photographs after it were not tried"
    assert desk.summary.startswith("1 restored") and ", 2 failed" in desk.summary
    assert [path.name for path in small_disk.iterdir()] == ["a.png"]


@pytest.mark.parametrize("kind", ["png", "tiff", "jpeg"])
def test_every_format_tells_a_full_disk(desk: Desk, small_disk: Path, kind: str) -> None:
    desk.add("x.bmp", random_values(1000, 900, 3, 8))
    desk.out = small_disk
    assert "No space left on device" in desk.run("x.bmp", "--format", kind, status=1)
    assert not list(small_disk.iterdir())


# The model and the command line


class Exploding:
    """Unpickled, it writes a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return Path.touch, (self.place,)


def test_a_pickle_given_as_model_is_not_unpickled(desk: Desk) -> None:
    trap = desk.folder / "trap"
    for name in ("model.pth", "model.safetensors"):
        torch.save({"weights": Exploding(trap)}, desk.folder / name)
        with pytest.raises(UserError, match=f"{name}: damaged or not written by this project"):
            desk.run("x.png", model=name)
        (desk.folder / name).write_bytes(pickle.dumps(Exploding(trap)))
        with pytest.raises(UserError, match=f"{name}: damaged or not written by this project"):
            desk.run("x.png", model=name)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (None, "not written by this project"),
        ([], "its facts are no names and values"),
        ({}, "restorer: found None"),
        ({"restorer": {**SETTINGS, "levels": 3}, "image_range": [0, 1]}, "of another network"),
        # 9 GB of weights: told before they are made
        ({"restorer": {**SETTINGS, "levels": 6, "channels": 512}, "image_range": [0, 1]},
         "of another network"),
        ({"restorer": {**SETTINGS, "kind": "pickle"}, "image_range": [0, 1]}, "expected one of"),
        ({"restorer": SETTINGS}, "image_range: found None"),
        ({"restorer": SETTINGS, "image_range": [1, 0]}, "image_range"),
        ({"restorer": SETTINGS, "image_range": [1, 1]}, "image_range"),
        ({"restorer": SETTINGS, "image_range": [0, float("inf")]}, "image_range"),
    ],
)  # fmt: skip
def test_a_model_without_its_facts_is_refused(desk: Desk, facts: Any, message: str) -> None:
    network = build_restorer(build(RestorerSettings, SETTINGS, "restorer"))
    path = desk.folder / "other.safetensors"
    if facts is None:
        from safetensors.torch import save_file

        save_file(network.state_dict(), path)
    else:
        save_tensors(path, network.state_dict(), facts)
    with pytest.raises(UserError, match=message) as caught:
        desk.run("x.png", model=path)
    assert "\n" not in str(caught.value)


def test_a_model_of_values_that_are_not_finite_is_told(desk: Desk) -> None:
    desk.add("x.png", smooth(8, 8))
    broken = save_model(desk.folder / "broken", last=float("nan"))
    assert "x.png: the model gives values that are not finite" in desk.run(
        "x.png", model=broken, status=1
    )
    assert not list(desk.out.iterdir())


def test_a_run_is_found_by_its_name(desk: Desk) -> None:
    desk.add("x.png", smooth(8, 8))
    run = desk.folder / "data" / "models" / "denoise" / "vanilla-0"
    run.mkdir(parents=True)
    save_model(run / "model.safetensors")
    desk.run("x.png", model="denoise/vanilla-0")
    desk.run("x.png", "--overwrite", model=run)
    with pytest.raises(UserError, match=r"derain/vanilla-0: no model; .*denoise/vanilla-0"):
        desk.run("x.png", model="derain/vanilla-0")


def test_settings_are_those_of_params_yaml_if_it_is_there(desk: Desk) -> None:
    desk.add("x.png", smooth(8, 8))
    shutil.copy(ROOT / "params.yaml", desk.folder)
    desk.run("x.png")
    Path("params.yaml").write_text("evaluate: 3\n")
    with pytest.raises(UserError):
        desk.run("x.png")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["x.png"],
        ["x.png", "--model", "m", "--out", "o", "--format", "gif"],
        ["x.png", "--model", "model.safetensors", "--out", "o", "--tile", "8"],
        ["x.png", "--model", "model.safetensors", "--out", "o", "--tile", "64", "--overlap", "40"],
        ["x.png", "--model", "nothing", "--out", "o"],
        ["x.png", "--model", "model.safetensors", "--out", "o", "--max-megapixels", "nan"],
        ["x.png", "--model", "model.safetensors", "--out", "o", "--max-megapixels", "0"],
        ["x.png", "--model", "model.safetensors", "--out", "model.safetensors/o"],
    ],
)
def test_wrong_usage_has_status_2(desk: Desk, words: list[str]) -> None:
    desk.add("x.png", smooth(8, 8))
    done = as_without_rights(*words, cwd=desk.folder)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr


# Tiles


def trained_like(levels: int = 3) -> InRange:
    """A U-Net whose residual is as strong as a trained one's, by chance not by training."""
    torch.manual_seed(1)
    network = build_restorer(build(RestorerSettings, {**SETTINGS, "levels": levels}, "restorer"))
    for parameter in network.parameters():
        parameter.data *= 2.0
    return InRange(network, (0.0, 1.0)).eval()


def test_no_seam_shows() -> None:
    """At the borders of tiles the tiled image jumps from the untiled no more than elsewhere."""
    rows, columns = np.mgrid[:300, :420].astype(np.float32)
    waves = 0.5 + 0.2 * np.sin(rows / 9) * np.cos(columns / 13)
    noise = np.random.default_rng(0).normal(0, 0.05, (300, 420, 3))
    given = (waves[..., None] + noise).astype(np.float32)
    network = trained_like()
    whole = restore(network, given, 512, 0, "fp32")
    assert np.abs(whole - given).max() > 0.05

    def jumps(overlap: int, axis: int) -> tuple[float, float]:
        """Return the largest jump of the difference at the rows or columns of borders, and else."""
        difference = restore(network, given, 128, overlap, "fp32") - whole
        steps = np.abs(np.diff(difference, axis=axis)).max(axis=(1 - axis, 2))
        side = given.shape[axis]
        tiles = aligned_tiles(side, 128, overlap, network.factor)
        edges = {edge for tile in tiles for edge in (tile.start, tile.stop)} - {0, side}
        at = np.isin(np.arange(len(steps)), [edge - 1 for edge in edges])
        return float(steps[at].max()), float(steps[~at].max())

    for axis in (0, 1):
        blended, elsewhere = jumps(overlap=32, axis=axis)
        hard, _ = jumps(overlap=0, axis=axis)
        assert blended <= 1.5 * elsewhere + 1e-4
        assert blended < hard / 5  # the measure sees a seam where there is one


def test_the_seam_figure(desk: Desk) -> None:
    picture = desk.folder / "seams.png"
    seams.main(["--model", str(desk.model), "--out", str(picture)])
    assert "blended: at most 0.0" in desk.capsys.readouterr().out
    assert PillowImage.open(picture).size == (1008, 276)
    assert 0 < (ROOT / "docs" / "seams.png").stat().st_size < 200_000


def test_memory_does_not_hold_the_whole_as_numbers(tmp_path: Path) -> None:
    """16 megapixels: 64 MB decoded; one float32 copy would be 192 MB more."""
    model = str(save_model(tmp_path / "model"))
    small, large = (
        restore_large.measure(size, "png", 1, network=model, tile=256, overlap=32)
        for size in (1, 16)
    )
    grown = (large["peak_mib"] - small["peak_mib"]) * 2**20
    assert grown < 4 * 16e6 + 30 * 4899 * 256
    assert grown < 16e6 * 12


def test_a_16_bit_png_passes_through_in_bounded_memory() -> None:
    """24 megapixels: 144 MB as numbers, of which no more than 64 MiB are ever held."""
    small, large = (
        restore_large.measure(size, "png16", 1, "nothing", tile=256, overlap=32) for size in (1, 24)
    )
    wider = 40 * 6000 * 256 / 2**20  # two rows of tiles
    assert large["peak_mib"] - small["peak_mib"] < 64 + wider
