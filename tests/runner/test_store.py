"""The run folder: lines that survive a crash, and refusals in one line."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.evaluation.records import SampleRecord, read_records
from benchmarks.evaluation.store import RunFolder, find_runs
from benchmarks.files import write_text
from lookm.errors import LookmError


def record(number: int, **fields: object) -> SampleRecord:
    return SampleRecord(sample_id=number, digest=f"d{number}", **fields)  # type: ignore[arg-type]


@given(st.text(), st.lists(st.integers(0, 99)), st.one_of(st.none(), st.text()))
def test_a_record_is_one_line_and_comes_back(answer: str, tokens: list[int], error: str | None) -> None:
    original = record(1, answer=answer, answer_tokens=tuple(tokens), error=error, times={"batch": 2})
    line = original.to_line()
    assert line.count("\n") == 1
    assert SampleRecord.from_line(line) == original


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_a_torn_last_line_is_dropped_and_the_next_starts_afresh(tmp_path: Path, cut: int) -> None:
    folder = RunFolder(tmp_path)
    folder.append("A", [record(1, answer="é\u2028x"), record(2)])
    path = tmp_path / "A" / "samples.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    again = RunFolder(tmp_path)
    assert list(again.records("A")) == ["1"]
    again.append("A", [record(3)])
    assert list(read_records(path)) == ["1", "3"]


def test_a_torn_last_line_that_lacks_only_its_newline_is_computed_again(tmp_path: Path) -> None:
    RunFolder(tmp_path).append("A", [record(1)])
    path = tmp_path / "A" / "samples.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    assert read_records(path) == {}


def test_the_last_try_of_a_sample_counts(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.append("A", [record(1, error="no image")])
    folder.append("A", [record(1, answer="yes")])
    assert RunFolder(tmp_path).records("A")["1"].answer == "yes"


def test_sorting_leaves_one_line_per_sample_in_the_given_order(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.append("A", [record(2), record(1, error="no image"), record(1)])
    folder.sort("A", ["1", "2"])
    lines = (tmp_path / "A" / "samples.jsonl").read_text().splitlines()
    assert [SampleRecord.from_line(line) for line in lines] == [record(1), record(2)]


def test_a_run_made_from_something_else_is_refused(tmp_path: Path) -> None:
    RunFolder(tmp_path).describe(configuration={"model": {"name": "m"}, "seed": 0}, weights="w", data={"A": "1"})
    folder = RunFolder(tmp_path)
    folder.check(configuration={"model": {"name": "m"}, "seed": 0}, weights="w", data={"A": "1", "B": "2"})
    for name, value, told in (
        ("configuration", {"model": {"name": "n"}, "seed": 0}, "model.name: 'm' there, 'n' now"),
        ("configuration", {"model": {"name": "m"}}, "seed: 0 there, None now"),
        ("weights", "v", "'w' there, 'v' now"),
        ("data", {"A": "2"}, "A: '1' there, '2' now"),
    ):
        with pytest.raises(LookmError, match="overwrite=true starts afresh") as error:
            folder.check(**{name: value})
        assert f"other {name}" in str(error.value)
        assert told in str(error.value)


def test_a_folder_that_holds_no_run_is_never_thrown_away(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(LookmError, match=r"holds no run \(no run.json\)"):
        RunFolder(tmp_path).clear()
    assert (tmp_path / "thesis.txt").exists()


@pytest.mark.parametrize(("kind", "state"), [(KeyboardInterrupt, "interrupted"), (RuntimeError, "stopped by an error")])
def test_an_error_or_ctrl_c_is_noted_in_run_json(tmp_path: Path, kind: type[BaseException], state: str) -> None:
    seen = []

    def fail() -> None:
        seen.append(RunFolder(tmp_path).about["state"])
        raise kind

    with pytest.raises(kind), RunFolder(tmp_path).session(device="cpu"):
        fail()
    assert seen == ["running"]
    about = RunFolder(tmp_path).about
    assert about["state"] == state
    assert [session["state"] for session in about["sessions"]] == [state]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full_disk(handle: int) -> None:
        raise OSError("No space left on device")

    write_text(tmp_path / "a.txt", "old")
    monkeypatch.setattr("benchmarks.files.os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_text(tmp_path / "a.txt", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_runs_are_found_by_name_with_the_shards_of_all_ranks(tmp_path: Path) -> None:
    for name in ("b", "a"):
        RunFolder(tmp_path / name).describe(name=name, configuration={"seed": 0}, datasets={"two": {}, "one": {}})
    RunFolder(tmp_path / "a").append("one", [record(1)])
    RunFolder(tmp_path / "a", shard=1).append("one", [record(2)])
    RunFolder(tmp_path / "a", shard=1).append("two", [record(3)])
    (tmp_path / "a" / "one" / "samples.1.jsonl").open("a").write('{"sample_id": 4, "dig')
    found = find_runs(tmp_path)
    assert [run.name for run in found] == ["a", "b"]
    assert found[0].datasets == ("two", "one"), "in the benchmark's order"
    assert list(found[0].records("one")) == ["1", "2"]
    assert find_runs([tmp_path / "b"])[0].configuration == {"seed": 0}
    with pytest.raises(LookmError, match="holds no run"):
        find_runs(tmp_path / "a" / "one")
