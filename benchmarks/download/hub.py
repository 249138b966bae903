"""Files of the Hugging Face Hub: what a repository holds, room on the disk, fetching that goes on, and checking."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from lookm.errors import LookmError, message_of

Kind = Literal["dataset", "model"]
_BLOCK = 1 << 20  # bytes read at once


@dataclass(frozen=True)
class RemoteFile:
    """A file as the hub describes it.

    Attributes:
        name: path in the repository.
        size: bytes.
        digest: `sha256:…` of its content for large files, `git:…` (Git's blob SHA-1) for small ones.
    """

    name: str
    size: int
    digest: str


@dataclass(frozen=True)
class Repository:
    """One commit of a repository; `files` maps names to what the hub says of them."""

    name: str
    kind: Kind
    commit: str
    files: dict[str, RemoteFile]


def read_repository(name: str, kind: Kind, revision: str | None = None) -> Repository:
    """Asks the hub (`HF_ENDPOINT`) what a repository holds.

    Args:
        revision: commit, tag or branch; None is the main branch.

    Raises:
        LookmError: the hub cannot be reached, or has no such repository or revision.
    """
    from huggingface_hub import HfApi

    with hub_errors(name):
        found = HfApi().repo_info(name, repo_type=kind, revision=revision, files_metadata=True)
    files = {}
    for file in getattr(found, "siblings", None) or []:
        digest = f"sha256:{file.lfs.sha256}" if file.lfs is not None else f"git:{file.blob_id}"
        files[file.rfilename] = RemoteFile(file.rfilename, int(file.size or 0), digest)
    return Repository(name, kind, str(found.sha), files)


def fetch(repository: Repository, file: RemoteFile, target: Path) -> None:
    """Downloads one file and checks it; what is there already is checked and not fetched again.

    The part that has arrived lies beside the target until it is complete, so that any later call goes on from there
    (`hf_hub_download` throws the part away when its process ends). While each attempt brings something, it is tried on.

    Raises:
        LookmError: the connection broke off, the disk is full, or the content is not what the hub promised; then
            nothing is at `target`, and the part is only kept where it can be continued.
    """
    if target.is_file():
        if digest_of(target, file) == file.digest:
            return
        target.unlink()
    part = target.with_name(f"{target.name}.{file.digest.partition(':')[2][:8]}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    while True:
        before = part.stat().st_size if part.is_file() else 0
        try:
            _fetch_rest(repository, file, part)
            break
        except LookmError as error:
            arrived = part.stat().st_size if part.is_file() else 0
            if arrived <= before:
                raise LookmError(
                    f"{error} ({shown_bytes(arrived)} of {shown_bytes(file.size)} of {file.name} have arrived; the "
                    "same command goes on from there)"
                ) from None
    if digest_of(part, file) != file.digest:
        part.unlink()
        raise LookmError(
            f"{file.name} arrived with another checksum than {file.digest}, and was thrown away; run the same command "
            "again, and if that does not help, look at what lies between here and the hub (a proxy, a mirror)"
        )
    part.replace(target)


def _fetch_rest(repository: Repository, file: RemoteFile, part: Path) -> None:
    """Adds to the part what is missing of it."""
    from huggingface_hub import hf_hub_url, utils
    from huggingface_hub.file_download import http_get

    url = hf_hub_url(repository.name, file.name, repo_type=repository.kind, revision=repository.commit)
    with part.open("ab") as stream:
        if stream.tell() > file.size:
            stream.seek(0)
            stream.truncate()
        with hub_errors(file.name), bars_on_terminals(utils):
            http_get(
                url,
                stream,
                resume_size=stream.tell(),
                headers=utils.build_hf_headers(),
                expected_size=file.size,
                displayed_filename=file.name,
            )


def digest_of(path: Path, like: RemoteFile) -> str:
    """The digest of a file on disk, of the kind that the hub has of `like`; shows a bar where that takes long."""
    size = path.stat().st_size
    kind = like.digest.partition(":")[0]
    git = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    summary = git if kind == "git" else hashlib.sha256()
    with path.open("rb") as stream, progress(size, f"checking {like.name}") as bar:
        while block := stream.read(_BLOCK):
            summary.update(block)
            bar.update(len(block))
    return f"{kind}:{summary.hexdigest()}"


def progress(total: int, label: str) -> tqdm:
    """A bar over bytes on stderr; silent where stderr is no terminal, or for less than 100 MB."""
    hidden = not sys.stderr.isatty() or total < 100_000_000
    return tqdm(total=total, desc=label, unit="B", unit_scale=True, dynamic_ncols=True, disable=hidden, leave=False)


@contextmanager
def hub_errors(wanted: str) -> Iterator[None]:
    """Turns what goes wrong between here and the hub into one line.

    Raises:
        LookmError: in place of the library's exceptions.
    """
    from huggingface_hub import errors

    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        yield
    except errors.OfflineModeIsEnabled:
        raise LookmError(f"{wanted} cannot be fetched while HF_HUB_OFFLINE is set; unset it") from None
    except errors.GatedRepoError:
        raise LookmError(f"{wanted} is gated: accept its terms on {endpoint}, then `hf auth login`") from None
    except errors.RepositoryNotFoundError:
        raise LookmError(f"{endpoint} has no {wanted}, or it is private (then: `hf auth login`)") from None
    except errors.RevisionNotFoundError:
        raise LookmError(f"{wanted} has no such revision; leave --revision out for the newest") from None
    except errors.HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "no status")
        raise LookmError(f"{endpoint} answered {status} when asked for {wanted}; try again later") from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise LookmError(f"the disk is full, so {wanted} is not complete; make room") from None
        raise LookmError(f"{wanted} cannot be fetched from {endpoint}: {message_of(error)}") from None
    except Exception as error:
        # The library's HTTP client is httpx in one version and another package in the next.
        if not type(error).__module__.startswith("httpx"):
            raise
        raise LookmError(
            f"{wanted} cannot be fetched from {endpoint}: {message_of(error)}; check the network, or set HF_ENDPOINT "
            "to a mirror"
        ) from None


@contextmanager
def bars_on_terminals(library: Any) -> Iterator[None]:
    """Without a terminal, a library's bars (`huggingface_hub.utils`, `datasets`) would be one endless line in a log."""
    hide = not sys.stderr.isatty() and not library.are_progress_bars_disabled()
    if hide:
        library.disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            library.enable_progress_bars()


def require_space(needs: Mapping[Path, int], purpose: str) -> None:
    """Makes sure that everything fits.

    Args:
        needs: folder (it need not exist yet) → bytes that will be written there; folders on one disk are added up.

    Raises:
        LookmError: a disk has less room than is needed on it; says how much of both.
    """
    disks: dict[int, tuple[Path, int]] = {}
    for folder, size in needs.items():
        there = _existing(folder)
        device = there.stat().st_dev
        disks[device] = (there, disks.get(device, (there, 0))[1] + size)
    for folder, size in disks.values():
        free = shutil.disk_usage(folder).free
        if size > free:
            raise LookmError(
                f"{purpose} needs {shown_bytes(size)}, but the disk of {folder} has {shown_bytes(free)} free; "
                "make room, or choose a folder on another disk"
            )


def _existing(folder: Path) -> Path:
    """The folder, or the nearest of its parents that exists."""
    path = folder.resolve()
    while not path.exists():
        path = path.parent
    return path


def shown_bytes(size: float) -> str:
    """A number of bytes for people, in decimal units as disks are sold: "17.2 GB"."""
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
