"""Files that are either complete or absent, and the one line that says why they could not be written."""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from lookm.errors import LookmError

_REMEDIES = {
    errno.ENOSPC: "the disk is full; free some space, and the same command goes on",
    errno.EDQUOT: "the disk quota is used up; free some space, and the same command goes on",
    errno.EFBIG: "the file would be larger than is allowed here (see ulimit -f)",
    errno.EROFS: "it is read-only; choose another {place}",
    errno.EACCES: "permission denied; choose another {place}",
    errno.EPERM: "permission denied; choose another {place}",
}


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text atomically: readers see the old content or the new one, never a part.

    File and folder are synchronised, so that the new content also outlives a power cut. A file that has this content
    already is left alone.

    Raises:
        OSError: the folder cannot be written to, or the disk is full; the old content is then still there.
    """
    if _holds(path, text):
        return
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    _sync_folder(path.parent)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, which takes its place if the block ends well and vanishes otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")  # other machines have the same process ids
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any, *, indent: int | None = 2) -> None:
    """Writes a JSON value atomically, with a newline at its end."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=indent) + "\n")


def append_text(path: Path, text: str) -> None:
    """Adds UTF-8 text to a file, synchronised once; all of it or, where that fails, nothing.

    Raises:
        OSError: the file cannot be written to, or the disk is full; it is then as long as before.
    """
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab", buffering=0) as stream:
        before = stream.seek(0, os.SEEK_END)
        try:
            content = memoryview(text.encode())
            while content:
                content = content[stream.write(content) :]
            os.fsync(stream.fileno())
        except BaseException:
            with suppress(OSError):
                stream.truncate(before)
            raise
    if new:
        _sync_folder(path.parent)


def read_json(path: Path) -> Any:
    """The JSON in a file, or None where there is no such file or no JSON in it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def bytes_in(folder: Path) -> int:
    """Bytes of all files in a folder tree; 0 where there is none."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def remove_temporaries(folder: Path) -> None:
    """Removes what `write_text` left in a folder tree when it was killed; nobody may be writing there meanwhile."""
    for file in folder.rglob(".*.tmp"):
        file.unlink(missing_ok=True)


@contextmanager
def writing(path: Path, place: str = "results_dir") -> Iterator[None]:
    """Turns the system's refusal to write into one line that says what to do.

    Args:
        place: the option or key that says where it lies.

    Raises:
        LookmError: in place of an OSError inside the block.
    """
    try:
        yield
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0)
        reason = remedy.format(place=place) if remedy else f"{error.strerror or error}; see {place}"
        raise LookmError(f"{path} cannot be written to: {reason}") from None


def _holds(path: Path, text: str) -> bool:
    try:
        return path.read_bytes() == text.encode()
    except OSError:
        return False


def _sync_folder(folder: Path) -> None:
    """Makes a new name in a folder outlive a power cut, where the system can synchronise folders."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
