"""Getting MileBench: its archives from the Hugging Face Hub, and from them one folder per dataset."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from benchmarks.download.hub import Repository, fetch, read_repository, require_space, shown_bytes
from benchmarks.files import bytes_in, read_json, write_json
from benchmarks.milebench.archives import Contents, extract, read_contents
from benchmarks.milebench.taxonomy import DATASETS
from lookm.errors import LookmError

REPOSITORY = "FreedomIntelligence/MileBench"
ARCHIVES = tuple(f"MileBench_part{number}.tar.gz" for number in range(6))
MANIFEST = ".download.json"

_NAMES = frozenset(info.dataset for info in DATASETS)
_GROWTH = 1.1  # extracted / archived bytes, for the first look at the disk; pictures hardly compress


class Manifest:
    """`<root>/.download.json`: which archives were extracted, written before and after folders are moved.

    Of each archive: its SHA-256 `digest`, the `folders` of which it holds a part, and whether they are `placed`.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        content = read_json(root / MANIFEST)
        content = content if isinstance(content, dict) else {}
        self.commit: str | None = content.get("commit")
        self._archives: dict[str, dict[str, Any]] = content.get("archives", {})

    def folders(self, *, without: str | None = None) -> set[str]:
        """Datasets that this command put there, or was about to; of all archives but one."""
        return {folder for name, entry in self._archives.items() if name != without for folder in entry["folders"]}

    def is_placed(self, name: str, digest: str) -> bool:
        """Whether this very archive was placed before."""
        entry = self._archives.get(name, {})
        return bool(entry.get("placed")) and entry.get("digest") == digest

    def outstanding(self) -> list[str]:
        """Archives of which something is not where it belongs."""
        entries = {name: self._archives.get(name, {"placed": False}) for name in ARCHIVES}
        return [
            name
            for name, entry in entries.items()
            if not entry["placed"] or not all((self._root / folder).is_dir() for folder in entry["folders"])
        ]

    def record(self, name: str, contents: Contents, commit: str | None, *, placed: bool) -> None:
        """Notes an archive and writes the manifest."""
        self.commit = commit
        self._archives[name] = {"digest": contents.digest, "folders": list(contents.folders), "placed": placed}
        archives = dict(sorted(self._archives.items()))
        write_json(self._root / MANIFEST, {"repository": REPOSITORY, "commit": commit, "archives": archives})


def download_milebench(
    root: Path,
    *,
    archives: Path | None = None,
    source: Path | None = None,
    revision: str | None = None,
    delete: bool = False,
) -> list[str]:
    """Makes MileBench complete in a folder; what is there already is neither fetched nor extracted again.

    Args:
        archives: where the archives are kept; `<root>/.archives` by default.
        source: take the archives from this folder instead of the hub; they are not compared with the hub's checksums.
        revision: commit, tag or branch; by default the one that an earlier call began with, or else the newest.
        delete: delete each archive that came from the hub when it has been extracted.

    Returns:
        The archives that this call extracted; none where all was there.

    Raises:
        LookmError: no connection, no room, a wrong checksum, an archive that is not to be trusted, a dataset's folder
            that somebody else made, or another process at the same work.
    """
    from filelock import FileLock, Timeout

    manifest = Manifest(root)
    if not manifest.outstanding():
        return []
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / ".download.lock", timeout=0):
            return _complete(root, Manifest(root), archives or root / ".archives", source, revision, delete)
    except Timeout:
        raise LookmError(f"another process is downloading into {root}; wait for it") from None
    except OSError as error:
        raise LookmError(
            f"{error.filename or root}: {error.strerror or error}; free the disk, or choose --root"
        ) from None


def _complete(
    root: Path, manifest: Manifest, archives: Path, source: Path | None, revision: str | None, delete: bool
) -> list[str]:
    outstanding = manifest.outstanding()
    foreign = sorted(name for name in _NAMES - manifest.folders() if (root / name).exists())
    if foreign:
        raise LookmError(
            f"{root} holds {', '.join(foreign)}, which this command did not extract; move that away, or change --root"
        )
    repository = None
    if source is not None:
        archives, delete = source, False
    else:
        try:
            repository = read_repository(REPOSITORY, "dataset", revision or manifest.commit)
        except LookmError as error:
            raise LookmError(f"{error}; archives fetched elsewhere are extracted with --from FOLDER") from None
    for name in outstanding:
        if repository is None and not (archives / name).is_file():
            raise LookmError(f"{archives} has no {name}; it must hold {ARCHIVES[0]} … {ARCHIVES[-1]}")
        if repository is not None and name not in repository.files:
            raise LookmError(f"{REPOSITORY} has no {name} at {repository.commit}; give a --revision that has")
    _check_space(root, archives, outstanding, repository, delete)
    complete = {name for name in _NAMES if (root / name).is_dir()}
    for name in outstanding:
        file = repository.files[name] if repository is not None else None
        if file is not None and repository is not None:
            _say(f"{name}: fetching {shown_bytes(file.size)}")
            fetch(repository, file, archives / name)
        _place(root, manifest, archives / name, complete, repository)
        if delete:
            (archives / name).unlink()
    shutil.rmtree(root / ".extracting", ignore_errors=True)
    return outstanding


def _check_space(
    root: Path, archives: Path, outstanding: Iterable[str], repository: Repository | None, delete: bool
) -> None:
    """Looks at the disk before anything is fetched; each archive's true size is looked at before it is extracted."""
    sizes = {
        name: repository.files[name].size if repository is not None else (archives / name).stat().st_size
        for name in outstanding
    }
    missing = [size - _arrived(archives, name) for name, size in sizes.items()]
    kept = 0 if repository is None else max(missing) if delete else sum(missing)
    extracted = int(_GROWTH * sum(sizes.values()))
    needs = {root: extracted + kept} if archives.is_relative_to(root) else {root: extracted, archives: kept}
    require_space(needs, f"MileBench ({len(sizes)} archives, fetched and extracted)")


def _arrived(archives: Path, name: str) -> int:
    files = [archives / name, *archives.glob(f"{name}.*.part")]
    return max((file.stat().st_size for file in files if file.is_file()), default=0)


def _place(
    root: Path, manifest: Manifest, archive: Path, complete: Collection[str], repository: Repository | None
) -> None:
    """Extracts an archive beside the datasets and moves their folders where they belong.

    Datasets that are `complete` stay as they are, if they came from this very archive.
    """
    contents = read_contents(archive, _NAMES)
    if not contents.folders:
        raise LookmError(f"{archive} holds no dataset of MileBench")
    temporary = root / ".extracting" / f"{archive.name}.{contents.digest}"
    _say(f"{archive.name}: extracting {_described(contents)}")
    require_space({root: max(0, contents.size - bytes_in(temporary))}, f"extracting {archive.name}")
    extract(archive, temporary, contents)
    commit = None if repository is None else repository.commit
    again = manifest.is_placed(archive.name, contents.digest)
    shared = manifest.folders(without=archive.name)
    manifest.record(archive.name, contents, commit, placed=False)
    for folder in contents.folders:
        if again and folder in complete:
            continue
        if folder not in shared:  # else what is there is another archive's part of the dataset
            shutil.rmtree(root / folder, ignore_errors=True)
        _move(temporary / folder, root / folder)
    shutil.rmtree(temporary)
    manifest.record(archive.name, contents, commit, placed=True)


def _described(contents: Contents) -> str:
    skipped = f"; left out: {', '.join(contents.skipped)}" if contents.skipped else ""
    return f"{', '.join(contents.folders)} ({contents.files:,} files, {shown_bytes(contents.size)}{skipped})"


def _move(source: Path, target: Path) -> None:
    """Moves a folder in one step, or, where the dataset began in another archive, file by file."""
    if not target.exists():
        source.replace(target)
        return
    for path in sorted(path for path in source.rglob("*") if path.is_file()):
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
