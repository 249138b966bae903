"""Nothing of an archive is written before all of it is known to be harmless."""

import gzip
import hashlib
import io
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.milebench.archives import Contents, extract, read_contents
from benchmarks.milebench.download import ARCHIVES, download_milebench
from lookm.errors import LookmError

WANTED = ("TQA", "DocVQA")
Members = list[tuple[tarfile.TarInfo, bytes]]


def member(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, type=kind, linkname=target)


GOOD: Members = [member("TQA/TQA.json", b"{}"), member("TQA/images/0/1.png", b"picture")]


def pack(path: Path, members: Members) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as stream:
        for info, content in members:
            stream.addfile(info, io.BytesIO(content))
    return path


def pack_all(folder: Path, **archives: Members) -> None:
    """The six archives, one of a dataset each, but for those given by their number."""
    names = ("TQA", "DocVQA", "ALFRED", "IEdit", "MMCoQA", "GPR1200")
    for number, (name, archive) in enumerate(zip(names, ARCHIVES, strict=True)):
        pack(folder / archive, archives.get(f"part{number}", [member(f"{name}/{name}.json", b"{}")]))


def everything_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


HOSTILE = [
    (member("../x", b"evil"), "leaves the folder"),
    (member("TQA/../../x", b"evil"), "leaves the folder"),
    (member("/etc/x", b"evil"), "leaves the folder"),
    (member("MileBench/../../x", b"evil"), "leaves the folder"),
    (member("C:\\x", b"evil"), "leaves the folder"),
    (member("TQA\\..\\..\\x", b"evil"), "leaves the folder"),
    (link("TQA/x", "/etc/passwd"), "is a link to '/etc/passwd', outside the folder"),
    (link("TQA/x", "../../secret"), "is a link to '../../secret', outside the folder"),
    (link("TQA/images", ".."), "is a link to"),
    (link("TQA/x", "/etc/passwd", tarfile.LNKTYPE), "outside the folder"),
    (link("TQA/x", "../secret", tarfile.LNKTYPE), "outside the folder"),
    (link("TQA/x", "missing.png"), "is a link to 'missing.png', which is no file in it"),
    (link("TQA/x", "DocVQA/y", tarfile.LNKTYPE), "which is no file in it"),
    (link("TQA/x", "C:\\secret"), "which is no file in it"),
    (link("TQA/x", "..\\..\\secret"), "outside the folder"),
    (member("TQA/x", b"evil", pax_headers={"path": "TQA/x\0.png"}), "leaves the folder"),
    (member("TQA/x", type=tarfile.SYMTYPE, pax_headers={"linkpath": "y\0"}), "outside the folder"),
    (member("TQA/x", type=tarfile.CHRTYPE), "is a device or a pipe"),
    (member("TQA/x", type=tarfile.BLKTYPE), "is a device or a pipe"),
    (member("TQA/x", type=tarfile.FIFOTYPE), "is a device or a pipe"),
    (member("TQA/x", type=tarfile.GNUTYPE_SPARSE), "is sparse"),
    (member("Elsewhere/../../x", b"evil"), "leaves the folder"),
]


@pytest.mark.parametrize(("hostile", "reason"), HOSTILE, ids=lambda value: getattr(value, "name", None))
def test_a_hostile_member_is_named_and_nothing_is_extracted(
    tmp_path: Path, hostile: tuple[tarfile.TarInfo, bytes], reason: str
) -> None:
    outside, root = tmp_path / "secret", tmp_path / "deep" / "root"
    outside.write_text("mine")
    source = tmp_path / "archives"
    pack_all(source, part0=[*GOOD, hostile, member("TQA/after.png", b"more")])
    before = everything_below(tmp_path)
    with pytest.raises(LookmError) as error:
        download_milebench(root, source=source)
    assert str(error.value).startswith(f"{ARCHIVES[0]} is refused, and nothing of it was extracted")
    assert repr(hostile[0].pax_headers.get("path", hostile[0].name)) in str(error.value)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)
    after = everything_below(tmp_path)
    assert {path: after[path] for path in after if not path.endswith(".download.lock")} == before


def test_a_link_inside_becomes_a_copy(tmp_path: Path) -> None:
    archive = pack(
        tmp_path / "a.tar.gz",
        [
            link("TQA/early", "images/0/1.png"),
            *GOOD,
            link("TQA/images/1/again.png", "../0/1.png"),
            link("TQA/hard.png", "TQA/images/0/1.png", tarfile.LNKTYPE),
        ],
    )
    contents = read_contents(archive, WANTED)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert contents == Contents(("TQA",), (), files=5, size=2 + 4 * len(b"picture"), digest=digest)
    extract(archive, tmp_path / "out", contents)
    copies = [tmp_path / "out" / "TQA" / name for name in ("early", "images/1/again.png", "hard.png")]
    assert [path.read_bytes() for path in copies] == [b"picture"] * 3
    assert not any(path.is_symlink() or path.stat().st_nlink > 1 for path in copies)


def test_modes_and_owners_are_not_taken_over(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    archive = pack(tmp_path / "a.tar.gz", [member("TQA/TQA.json", b"{}", mode=0o6777, uid=12345, gid=12345)])
    extract(archive, tmp_path / "out", read_contents(archive, WANTED))
    ours, theirs = (tmp_path / "out" / "TQA" / "TQA.json").stat(), plain.stat()
    assert (ours.st_mode, ours.st_uid, ours.st_gid) == (theirs.st_mode, theirs.st_uid, theirs.st_gid)


@pytest.mark.parametrize("prefix", ["", "./", "MileBench/", "./MileBench/"])
def test_a_wrapping_folder_is_looked_through(tmp_path: Path, prefix: str) -> None:
    members = [member(f"{prefix}{info.name}", content) for info, content in GOOD]
    top = [] if prefix == "" else [member(prefix.rstrip("/"), type=tarfile.DIRTYPE)]
    archive = pack(tmp_path / "a.tar.gz", [*top, *members])
    contents = read_contents(archive, WANTED)
    assert (contents.folders, contents.skipped) == (("TQA",), ())
    extract(archive, tmp_path / "out", contents)
    assert everything_below(tmp_path / "out") == {"TQA/TQA.json": b"{}", "TQA/images/0/1.png": b"picture"}


def test_what_is_no_dataset_is_left_out_and_named(tmp_path: Path) -> None:
    strange = [member(".download.json", b"{}"), member("Other/x", b"x"), member("TQA", b"a file")]
    archive = pack(tmp_path / "a.tar.gz", [*strange, member("DocVQA/DocVQA.json", b"{}")])
    contents = read_contents(archive, WANTED)
    assert (contents.folders, contents.skipped, contents.files) == (("DocVQA",), (".download.json", "Other", "TQA"), 1)
    extract(archive, tmp_path / "out", contents)
    assert list(everything_below(tmp_path / "out")) == ["DocVQA/DocVQA.json"]


def test_a_dataset_spread_over_two_archives_is_put_together(tmp_path: Path) -> None:
    pack_all(tmp_path / "archives", part3=[member("TQA/images/0/2.png", b"second"), member("IEdit/IEdit.json", b"{}")])
    root = tmp_path / "root"
    assert len(download_milebench(root, source=tmp_path / "archives")) == 6
    assert sorted(path.name for path in (root / "TQA").rglob("*") if path.is_file()) == ["2.png", "TQA.json"]
    assert download_milebench(root, source=tmp_path / "archives") == []


@pytest.mark.parametrize(
    "damage",
    [lambda content: content[: len(content) // 2], lambda content: b"no gzip", lambda content: content[:-8] + bytes(8)],
    ids=["truncated", "other", "changed"],
)  # fmt: skip
def test_a_broken_archive_is_named(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    pack_all(tmp_path / "archives", part0=[*GOOD, member("TQA/images/1.png", bytes(range(256)) * 99)])
    archive = tmp_path / "archives" / ARCHIVES[0]
    archive.write_bytes(damage(archive.read_bytes()))
    with pytest.raises(LookmError, match=rf"{ARCHIVES[0]} is broken \(.*\); delete it") as error:
        download_milebench(tmp_path / "root", source=tmp_path / "archives")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "root" / "TQA").exists()


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("name", ["TQA/huge.png", "Elsewhere/huge.png"])
def test_a_header_that_claims_more_than_there_is_is_refused_at_the_archive_s_end(
    tmp_path: Path, name: str, form: int
) -> None:
    path = tmp_path / "a.tar.gz"
    huge = tarfile.TarInfo(name)
    huge.size = 10**18
    with gzip.open(path, "wb") as stream:
        stream.write(tarfile.TarInfo("TQA/first.png").tobuf(form) + huge.tobuf(form) + bytes(1 << 16))
    with pytest.raises(LookmError, match=r"a\.tar\.gz is broken \(unexpected end of data\)"):
        read_contents(path, WANTED)


def test_what_another_archive_of_that_name_left_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, bad, good = tmp_path / "root", tmp_path / "bad", tmp_path / "good"
    pack_all(bad, part0=[GOOD[0], member("TQA/images/0/1.png", b"PICTURE"), member("TQA/last.png", b"last")])
    pack_all(good, part0=[*GOOD, member("TQA/last.png", b"last")])
    real, copied = shutil.copyfileobj, []

    def interrupted(source: object, target: object, length: int) -> None:
        if len(copied) == 2:
            raise KeyboardInterrupt
        copied.append(target)
        real(source, target, length)  # type: ignore[arg-type]

    monkeypatch.setattr(shutil, "copyfileobj", interrupted)
    with pytest.raises(KeyboardInterrupt):
        download_milebench(root, source=bad)
    monkeypatch.setattr(shutil, "copyfileobj", real)
    assert [path.read_bytes() for path in root.rglob("1.png")] == [b"PICTURE"], "left by the bad archive"
    download_milebench(root, source=good)
    assert (root / "TQA" / "images" / "0" / "1.png").read_bytes() == b"picture"
    assert not (root / ".extracting").exists()


def test_a_bad_archive_that_was_placed_leaves_nothing_when_a_good_one_replaces_it(tmp_path: Path) -> None:
    root, bad, good = tmp_path / "root", tmp_path / "bad", tmp_path / "good"
    pack_all(bad, part0=[*GOOD, member("TQA/extra.png", b"extra"), member("WebQA/WebQA.json", b"{}")])
    pack_all(good, part0=[GOOD[0], member("TQA/images/0/1.png", b"PICTURE"), member("WebQA/WebQA.json", b"{}")])
    download_milebench(root, source=bad)
    (root / "WebQA").rename(tmp_path / "away")  # so that the archive is extracted again
    assert download_milebench(root, source=good) == [ARCHIVES[0]]
    assert everything_below(root / "TQA") == {"TQA.json": b"{}", "images/0/1.png": b"PICTURE"}


def test_a_dataset_that_is_brought_back_leaves_the_others_of_its_archive_alone(tmp_path: Path) -> None:
    root, source = tmp_path / "root", tmp_path / "source"
    pack_all(source, part0=[*GOOD, member("WebQA/WebQA.json", b"{}")], part3=[member("TQA/second.png", b"2")])
    download_milebench(root, source=source)
    (root / "WebQA" / "combined_1_images").mkdir()
    (root / "TQA").rename(tmp_path / "away")
    assert download_milebench(root, source=source) == [ARCHIVES[0], ARCHIVES[3]]
    assert everything_below(root / "TQA") == everything_below(tmp_path / "away")
    assert (root / "WebQA" / "combined_1_images").is_dir(), "made here, not extracted"


def test_an_archive_without_a_dataset_is_refused(tmp_path: Path) -> None:
    pack_all(tmp_path / "archives", part5=[member("Other/x", b"x")])
    with pytest.raises(LookmError, match=f"{ARCHIVES[5]} holds no dataset of MileBench"):
        download_milebench(tmp_path / "root", source=tmp_path / "archives")


def test_a_missing_archive_is_named(tmp_path: Path) -> None:
    pack_all(tmp_path / "archives")
    (tmp_path / "archives" / ARCHIVES[2]).unlink()
    with pytest.raises(LookmError, match=f"has no {ARCHIVES[2]}; it must hold {ARCHIVES[0]} … {ARCHIVES[5]}"):
        download_milebench(tmp_path / "root", source=tmp_path / "archives")


def test_a_file_where_a_folder_should_be_is_said_in_one_line(tmp_path: Path) -> None:
    pack_all(tmp_path / "archives", part0=[member("TQA/a", b"x"), member("TQA/a/b", b"x")])
    with pytest.raises(LookmError, match=r"TQA/a") as error:
        download_milebench(tmp_path / "root", source=tmp_path / "archives")
    assert "\n" not in str(error.value)
