"""Photographs of one's own: folders of clean, unlabeled real and, if there are any, test images.

Folders may be nested and formats mixed. Test pairs are matched by their path below the two
folders, without the ending. Without test pairs the real photographs are restored and shown,
but there is nothing to score.
"""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from pipeline.config.sources import FolderSource
from pipeline.images.files import ENDINGS, UNREAD_ENDINGS
from pipeline.runtime.errors import UserError
from pipeline.runtime.files import require_space
from pipeline.runtime.progress import ProgressBars
from pipeline.runtime.streaming import mapped, working_threads
from pipeline.sources.archives.reading import open_archive, write_archive
from pipeline.sources.photographs import ARCHIVE, ImageFile, Photograph, decode, skippable

UNSCORED = "own photographs without truth"


def download(settings: FolderSource, folder: Path) -> None:
    """Copy all images into one archive, after checking that every one can be read.

    Photographs of kinds that are not read are left out and counted, linked folders named.

    Raises:
        UserError: a folder is missing or empty, an image cannot be read, or a test image has no
            partner of the same name and size.
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
            images = _images(root / chosen, progress)
            files |= {f"{name}/{key}{path.suffix}": path for key, path in images.items()}
        _require_readable(files, folder.name, settings.skip_unreadable, progress)
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
        folders |= {f"test/{name}/degraded": pair.degraded, f"test/{name}/clean": pair.clean}
    return folders


def _images(folder: Path, progress: ProgressBars) -> dict[str, Path]:
    """Return the images below a folder by their path without the ending, sorted."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected a folder of images")
    found: dict[str, Path] = {}
    unread: Counter[str] = Counter()
    for path in sorted(folder.rglob("*")):
        ending = path.suffix.lower()
        if path.name.startswith("."):  # such as macOS's ._photo.jpg, which is no image
            continue
        if path.is_symlink() and path.is_dir():
            progress.say(
                f"left out {path}: a link to a folder, in which DVC sees no change; move the folder"
                " here"
            )
        if ending in UNREAD_ENDINGS and path.is_file():
            unread[ending[1:].upper()] += 1
        if ending not in ENDINGS or not path.is_file():
            continue
        key = path.relative_to(folder).with_suffix("").as_posix()
        if not _is_unicode(key):
            raise UserError(f"{str(path)!r}: the file name is not UTF-8; rename the file")
        if key in found:
            raise UserError(f"{path}: same name as {found[key].name}; keep one of the two")
        found[key] = path
    if unread:
        counts = ", ".join(f"{count} {kind}" for kind, count in unread.most_common())
        progress.say(
            f"{folder}: left out {counts}, which are not read; save them as PNG, TIFF or JPEG"
        )
    if not found:
        raise UserError(f"{folder}: no image found; expected files ending in {', '.join(ENDINGS)}")
    return found


def _require_readable(
    files: dict[str, Path], source: str, skip: bool, progress: ProgressBars
) -> None:
    """Stop at the first file that cannot be read or, to skip, drop training images like it."""
    unreadable: dict[str, str] = {}
    with ThreadPoolExecutor(working_threads()) as pool:
        task = progress.add("photographs", len(files))
        reasons = zip(files, mapped(pool, _unreadable, files.values()), strict=True)
        for done, (name, reason) in enumerate(reasons, 1):
            progress.reach(task, done, len(files), fresh=1)
            test = name.startswith("test/")
            if reason is not None and (not skip or test):
                pool.shutdown(cancel_futures=True)
                raise UserError(reason if test else f"{reason}; {skippable(source)}")
            if reason is not None:
                unreadable[name] = reason
                progress.say(f"left out {reason}")
        if unreadable:
            progress.say(f"left out {len(unreadable)} of {len(files)} images")
    gone = {name.rpartition(".")[0].partition("/")[2] for name in unreadable
            if name.startswith(("clean/", "degraded/"))}  # fmt: skip
    for name in list(files):
        partner = name.rpartition(".")[0].partition("/")[2] in gone
        if name in unreadable or (partner and name.startswith(("clean/", "degraded/"))):
            del files[name]


def _unreadable(path: Path) -> str | None:
    try:
        decode(path.read_bytes(), str(path))
    except UserError as error:
        return str(error)
    return None


def _is_unicode(name: str) -> bool:
    # undecodable bytes of a file name become lone surrogates, which no archive can hold
    return not any("\ud800" <= character <= "\udfff" for character in name)


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
    for name in sorted(degraded.keys() ^ clean.keys()):
        lacking = "clean" if name in degraded else "degraded"
        raise UserError(
            f"{which}: {name!r} has no {lacking} partner of the same name;"
            " add the partner or remove the image"
        )
    for name, file in degraded.items():
        sizes = file.size(), clean[name].size()
        if sizes[0] != sizes[1]:
            raise UserError(
                f"{which}: {name!r} is {sizes[0]} (height, width) degraded but"
                f" {sizes[1]} clean; a pair needs one size"
            )
