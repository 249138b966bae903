"""Tar archives of datasets, which are not trusted: looked through completely before anything is written."""

from __future__ import annotations

import gzip
import hashlib
import posixpath
import shutil
import tarfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from tqdm.utils import CallbackIOWrapper

from benchmarks.download.hub import progress
from lookm.errors import LookmError, message_of

WRAPPER = "MileBench"  # a top folder of this name is looked through
_BLOCK = 1 << 20  # bytes read at once


@dataclass(frozen=True)
class Contents:
    """What extracting an archive will write.

    Attributes:
        folders: the wanted top folders that it holds.
        skipped: other names at its top, which are not extracted.
        digest: SHA-256 of the archive.
    """

    folders: tuple[str, ...]
    skipped: tuple[str, ...]
    files: int
    size: int
    digest: str


@dataclass(frozen=True)
class _Entry:
    """A member that is to be written: where to, and, of a link, the file in the archive that it names."""

    member: tarfile.TarInfo
    path: PurePosixPath
    source: PurePosixPath | None = None


def read_contents(archive: Path, wanted: Collection[str]) -> Contents:
    """Looks through a `.tar.gz`, members that will not be extracted included; writes nothing.

    Args:
        wanted: names of the top folders that may be extracted.

    Raises:
        LookmError: a member that is absolute, leaves the folder, is a device, a pipe, sparse, or a link to something
            that the archive does not hold as a file; or the archive is broken, or shorter than its headers claim.
    """
    folders: dict[str, None] = {}
    skipped: dict[str, None] = {}
    sizes: dict[PurePosixPath, int] = {}
    links: list[_Entry] = []
    with _members(archive, "looking through") as stream:
        for member in stream:
            entry = _entry(archive, member)
            if member.isreg():
                _read_through(stream, member)
            if entry is None:
                continue
            top = entry.path.parts[0]
            if top not in wanted or (len(entry.path.parts) == 1 and not member.isdir()):
                skipped[top] = None
                continue
            folders[top] = None
            if entry.source is not None:
                links.append(entry)
            elif member.isreg():
                sizes[entry.path] = member.size
    for link in links:
        if link.source not in sizes:
            raise _refusal(archive, link.member, f"is a link to {link.member.linkname!r}, which is no file in it")
    copied = sum(sizes[link.source] for link in links if link.source is not None)
    files, size = len(sizes) + len(links), sum(sizes.values()) + copied
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Contents(tuple(folders), tuple(skipped), files, size, digest)


def _read_through(stream: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    """Reads a file and forgets it. `tarfile` itself would seek to its end, step by step, however far that claims to be.

    Raises:
        tarfile.ReadError: the archive ends before the file does.
    """
    content = stream.extractfile(member)
    assert content is not None, "a regular file"
    while content.read(_BLOCK):
        pass


def extract(archive: Path, target: Path, contents: Contents) -> None:
    """Extracts the folders that `read_contents` found; files that are there with the right size stay.

    Each file appears complete or not at all, so that an interrupted extraction is gone on with. Links become copies.

    Args:
        target: a folder for this very archive: one for each digest.
        contents: what `read_contents` returned for the archive.

    Raises:
        LookmError: as `read_contents`, which must have been asked before.
        OSError: the folder cannot be written to.
    """
    links: list[_Entry] = []
    with _members(archive, "extracting") as stream:
        for member in stream:
            entry = _entry(archive, member)
            if entry is None or entry.path.parts[0] not in contents.folders:
                continue
            path = target / entry.path
            if member.isdir():
                path.mkdir(parents=True, exist_ok=True)
            elif entry.source is not None:
                links.append(entry)
            elif not (path.is_file() and path.stat().st_size == member.size):
                content = stream.extractfile(member)
                assert content is not None, "only files are left"
                path.parent.mkdir(parents=True, exist_ok=True)
                part = path.with_name(f"{path.name}.part")
                with part.open("wb") as file:
                    shutil.copyfileobj(content, file, _BLOCK)
                part.replace(path)
    for link in links:
        assert link.source is not None
        (target / link.path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(target / link.source, target / link.path)


@contextmanager
def _members(archive: Path, doing: str) -> Iterator[tarfile.TarFile]:
    """The archive as a stream, with a bar over its compressed bytes.

    Raises:
        LookmError: in place of everything that a broken archive can raise.
    """
    size = archive.stat().st_size
    try:
        with (
            archive.open("rb") as file,
            progress(size, f"{doing} {archive.name}") as bar,
            gzip.GzipFile(fileobj=CallbackIOWrapper(bar.update, file, "read")) as plain,
        ):
            with tarfile.open(fileobj=plain, mode="r|") as stream:
                yield stream
            while plain.read(_BLOCK):
                pass  # the checksum stands at the very end
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise LookmError(
            f"{archive} is broken ({message_of(error)}); delete it and run the same command again"
        ) from None


def _entry(archive: Path, member: tarfile.TarInfo) -> _Entry | None:
    """Where a member goes; None for the top folder itself.

    `tarfile.data_filter` would judge much the same, but Python 3.11 has it only from 3.11.4 on. Of a member nothing but
    its name and its bytes is used: owners and modes, setuid among them, are never applied.

    Raises:
        LookmError: the member is not to be trusted.
    """
    path = _inside(member.name)
    if path is None:
        raise _refusal(archive, member, "leaves the folder")
    if not (member.isreg() or member.isdir() or member.islnk() or member.issym()):
        raise _refusal(archive, member, "is a device or a pipe")
    if member.issparse():
        raise _refusal(archive, member, "is sparse, so that its size says nothing")
    source = None
    if member.islnk() or member.issym():
        start = "" if member.islnk() else posixpath.dirname(member.name)
        source = _inside(posixpath.normpath(posixpath.join(start, member.linkname)))
        if source is None:
            raise _refusal(archive, member, f"is a link to {member.linkname!r}, outside the folder")
        source = _unwrapped(source)
    path = _unwrapped(path)
    return _Entry(member, path, source) if path.parts else None


def _inside(name: str) -> PurePosixPath | None:
    """The path, if it stays below the folder it is taken from, on any system."""
    if "\0" in name:  # a PAX header can hold one, a file system cannot
        return None
    for flavour in (PurePosixPath(name), PureWindowsPath(name)):
        if flavour.anchor or ".." in flavour.parts:
            return None
    return PurePosixPath(name)


def _unwrapped(path: PurePosixPath) -> PurePosixPath:
    return PurePosixPath(*path.parts[1:]) if path.parts[:1] == (WRAPPER,) else path


def _refusal(archive: Path, member: tarfile.TarInfo, reason: str) -> LookmError:
    return LookmError(
        f"{archive.name} is refused, and nothing of it was extracted: its member {member.name!r} {reason}"
    )
