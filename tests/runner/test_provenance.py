"""Fingerprints change with what they stand for, and with nothing else."""

from pathlib import Path

from benchmarks.evaluation.provenance import git_state, versions, weights_digest
from benchmarks.milebench.annotation import digest
from benchmarks.milebench.dataset import sample_digest


def test_a_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": [1, 2]}) != digest({"a": [2, 1]})


def test_weights_are_told_apart_by_content_and_name_but_not_by_their_card(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"123")
    first = weights_digest(tmp_path)
    (tmp_path / "README.md").write_text("trained for an hour")
    assert weights_digest(tmp_path) == first
    (tmp_path / "model.safetensors").write_bytes(b"124")
    assert weights_digest(tmp_path) != first
    (tmp_path / "model.safetensors").rename(tmp_path / "other.safetensors")
    (tmp_path / "other.safetensors").write_bytes(b"123")
    assert weights_digest(tmp_path) != first


def test_large_files_are_sampled_at_beginning_middle_and_end(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    content = bytearray(33 * 2**20)
    seen = set()
    for place in (None, 0, len(content) // 2, len(content) - 1):
        changed = bytearray(content)
        if place is not None:
            changed[place] = 1
        file.write_bytes(changed)
        seen.add(weights_digest(tmp_path))
    assert len(seen) == 4


def test_a_sample_is_told_apart_by_text_instruction_and_image_size(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"1")
    sample = {"sample_id": 1, "task_instance": {"context": "x", "images_path": ["a.png", "absent.png"]}}
    first = sample_digest(sample, "Look.", tmp_path)
    assert sample_digest(sample, "Look.", tmp_path) == first
    assert sample_digest(sample, "Look!", tmp_path) != first
    (tmp_path / "a.png").write_bytes(b"12")
    assert sample_digest(sample, "Look.", tmp_path) != first


def test_versions_and_commit_are_known_here() -> None:
    assert versions()["torch"]
    assert set(git_state()) == {"commit", "dirty"}
