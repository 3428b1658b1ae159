"""Photographs of one's own: folders of clean, unlabeled real and, if there are any, test images.

Folders may be nested and formats mixed. Test pairs are matched by their path below the two
folders, without the ending. Without test pairs the real photographs are restored and shown,
but there is nothing to score.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from pipeline.config.sources import FolderSource
from pipeline.images.files import readable_endings
from pipeline.images.reading.folders import is_unicode, left_out, walk
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import require_space
from pipeline.runtime.progress import ProgressBars
from pipeline.runtime.streaming import mapped, working_threads
from pipeline.sources.archives.reading import open_archive, write_archive
from pipeline.sources.photographs import ARCHIVE, ImageFile, Photograph, decode, skippable

UNSCORED = "own photographs without truth"
TRAINING_PAIRS = ("clean/", "degraded/")
MOST_NAMED = 5
"""Of images that are refused together."""


def download(settings: FolderSource, folder: Path) -> None:
    """Copy all images into one archive, after checking that every one can be read.

    Photographs of kinds that are not read are left out and counted, linked folders named.

    Raises:
        UserError: a folder is missing or empty, an image cannot be read, a test image is a training
            image as well, or has no partner of the same name and size.
    """
    root = Path(settings.location)
    if not root.is_dir():
        raise UserError(
            f"sources: location {settings.location!r} is not a folder; set"
            " sources.<name>.location to the folder that holds your photographs"
        )
    files: dict[str, Path] = {}
    with ProgressBars("checking", "images") as progress:
        for name, chosen in _folders(settings).items():
            images = _images(root / chosen, _name_in(settings, name), progress)
            files |= {f"{name}/{key}{path.suffix}": path for key, path in images.items()}
        hashes = _read_all(files, folder.name, settings.skip_unreadable, progress)
        _require_unseen(files, hashes, progress)
    require_space(folder, sum(path.stat().st_size for path in files.values()))
    write_archive(
        folder / ARCHIVE,
        [(name, lambda path=path: path.read_bytes()) for name, path in files.items()],  # type: ignore[misc]
    )
    photographs(settings, folder)


def photographs(settings: FolderSource, folder: Path) -> list[Photograph]:
    """Return the archive's photographs.

    Raises:
        UserError: a test image has no partner of the same name and size.
    """
    archive = folder / ARCHIVE
    by_folder = _archived(archive)
    clean_images, partners = by_folder.get("clean", {}), by_folder.get("degraded", {})
    if settings.degraded is not None:
        _require_partners("synthetic pairs", partners, clean_images)
    listed = [
        Photograph(name, "synthetic", name, "own clean images", partners.get(name), file)
        for name, file in clean_images.items()
    ]
    real = by_folder.get("real", {})
    listed += [
        Photograph(name, "real", name, "own photographs", file, None) for name, file in real.items()
    ]
    for test in settings.test:
        degraded = by_folder.get(f"test/{test}/degraded", {})
        clean = by_folder.get(f"test/{test}/clean", {})
        _require_partners(f"test set {test!r}", degraded, clean)
        listed += [
            Photograph(
                f"{test}/{name}", "test", f"{test}/{name}", test, degraded[name], clean[name]
            )
            for name in degraded
        ]
    if not settings.test:
        listed += [
            Photograph(f"unscored/{name}", "test", name, UNSCORED, file, None)
            for name, file in real.items()
        ]
    return listed


def _folders(settings: FolderSource) -> dict[str, str]:
    given = {"clean": settings.clean, "degraded": settings.degraded, "real": settings.real}
    folders = {name: folder for name, folder in given.items() if folder is not None}
    for name, pair in settings.test.items():
        if PurePosixPath(name).name != name:
            raise UserError(f"sources: found the test set {name!r}, expected a name without '/'")
        folders |= {f"test/{name}/degraded": pair.degraded, f"test/{name}/clean": pair.clean}
    return folders


def _name_in(settings: FolderSource, folder: str) -> str:
    """Return how images of a folder are named: only of pairs may it be other than by the path."""
    if folder.endswith("degraded"):
        return settings.degraded_name
    paired = folder != "clean" or settings.degraded is not None
    return settings.clean_name if folder.endswith("clean") and paired else "{}"


def _images(folder: Path, name: str, progress: ProgressBars) -> dict[str, Path]:
    """Return the images below a folder by their path without the ending, sorted.

    Of pairs with names such as x_noisy.png, ``name`` is '{}_noisy' and the path ends with x.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected a folder of images")
    below = walk(folder, follow=False, readable=readable_endings())
    for line in left_out(folder, below):
        progress.say(line)
    found: dict[str, Path] = {}
    unnamed = 0
    for path in below.images:
        if not path.is_file():
            continue
        stem = _within(name, path.stem)
        if stem is None:
            unnamed += 1
            continue
        key = (path.relative_to(folder).parent / stem).as_posix()
        if not is_unicode(key):
            raise UserError(f"{str(path)!r}: the file name is not UTF-8; rename the file")
        if key in found:
            raise UserError(f"{path}: same name as {found[key].name}; keep one of the two")
        found[key] = path
    if unnamed and found:
        progress.say(f"{folder}: left out {unnamed} images whose names are not as {name!r} says")
    if not found and unnamed:
        raise UserError(
            f"{folder}: no image is named as {name!r} says; found {below.images[0].name}. {{}}"
            " stands for what both images of a pair share, without the ending"
        )
    if not found:
        raise UserError(
            f"{folder}: no image found; expected files ending in {', '.join(readable_endings())}"
        )
    return found


def _within(name: str, stem: str) -> str | None:
    """Return what stands for {} in a name, None if the name is another."""
    before, braces, after = name.partition("{}")
    if not braces or "{}" in after:
        raise UserError(f"sources: found the name {name!r}, expected one with {{}} in it once")
    middle = stem.removeprefix(before).removesuffix(after)
    return middle if middle and stem == f"{before}{middle}{after}" else None


def _read_all(
    files: dict[str, Path], source: str, skip: bool, progress: ProgressBars
) -> dict[str, str]:
    """Return a hash of the pixels of every file, after dropping those that may be skipped.

    Raises:
        UserError: the first file that cannot be read and is not skipped.
    """
    unreadable: dict[str, str] = {}
    hashes: dict[str, str] = {}
    with ThreadPoolExecutor(working_threads()) as pool:
        task = progress.add("photographs", len(files))
        results = zip(files, mapped(pool, _pixel_hash, files.values()), strict=True)
        for done, (name, result) in enumerate(results, 1):
            progress.reach(task, done, len(files), fresh=1)
            if isinstance(result, str):
                hashes[name] = result
                continue
            test = name.startswith("test/")
            if not skip or test:
                pool.shutdown(cancel_futures=True)
                raise UserError(str(result) if test else f"{result}; {skippable(source)}")
            unreadable[name] = str(result)
            progress.say(f"left out {result}")
        if unreadable:
            progress.say(f"left out {len(unreadable)} of {len(files)} images")
    gone = {_key(name) for name in unreadable if name.startswith(TRAINING_PAIRS)}
    for name in list(files):
        if name in unreadable or (_key(name) in gone and name.startswith(TRAINING_PAIRS)):
            del files[name]
    return hashes


def _pixel_hash(path: Path) -> str | UserError:
    try:
        pixels = decode(path.read_bytes(), str(path))
    except UserError as error:
        return error
    return hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()


def _key(name: str) -> str:
    return name.rpartition(".")[0].partition("/")[2]


def _require_unseen(files: dict[str, Path], hashes: dict[str, str], progress: ProgressBars) -> None:
    """Refuse test images that are training images as well: the same pixels, whatever the file."""
    trained: dict[str, str] = {}
    twice = 0
    for name in files:
        if not name.startswith("test/"):
            twice += hashes[name] in trained and name.startswith("clean/")
            trained.setdefault(hashes[name], name)
    seen = [f"{files[name]} = {files[trained[hashes[name]]]}" for name in files
            if name.startswith("test/") and hashes[name] in trained]  # fmt: skip
    if seen:
        raise UserError(
            f"{len(seen)} test images are training images as well ({_some(seen)}); what is tested"
            " must not be seen in training: remove them from one of the two"
        )
    for test in dict.fromkeys(name.split("/")[1] for name in files if name.startswith("test/")):
        pixels = [
            {name.rpartition(".")[0].split("/", 3)[3]: hashes[name]
             for name in files if name.startswith(f"test/{test}/{role}/")}
            for role in ("degraded", "clean")
        ]  # fmt: skip
        if pixels[0] == pixels[1]:
            raise UserError(
                f"test set {test!r}: its degraded images are its clean ones, pixel by pixel; name"
                " the folder of the degraded ones"
            )
    if twice:
        progress.say(f"{twice} clean images are copies of others and count twice in training")


def _some(names: list[str]) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


def _archived(archive: Path) -> dict[str, dict[str, ImageFile]]:
    by_folder: dict[str, dict[str, ImageFile]] = {}
    for name in open_archive(archive).namelist():
        parts = PurePosixPath(name).with_suffix("").parts
        depth = 3 if parts[0] == "test" else 1
        group = by_folder.setdefault("/".join(parts[:depth]), {})
        group["/".join(parts[depth:])] = ImageFile(archive, name)
    return by_folder


def _require_partners(
    which: str, degraded: dict[str, ImageFile], clean: dict[str, ImageFile]
) -> None:
    lacking = [
        f"{name!r} has no {'clean' if name in degraded else 'degraded'} partner of the same name"
        for name in sorted(degraded.keys() ^ clean.keys())
    ]
    if lacking:
        raise UserError(f"{which}: {_some(lacking)}; add the partners or remove the images")
    for name, file in degraded.items():
        sizes = file.size(), clean[name].size()
        if sizes[0] != sizes[1]:
            raise UserError(
                f"{which}: {name!r} is {sizes[0]} (height, width) degraded but"
                f" {sizes[1]} clean; a pair needs one size"
            )
