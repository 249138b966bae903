"""Memory that is bounded and belongs to one model."""

from benchmarks.reuse import Reuse


def test_what_comes_first_is_kept_until_the_room_is_full() -> None:
    reuse = Reuse(limit=10)
    for key, n_bytes in (("a", 6), ("b", 5), ("c", 4)):
        reuse.keep(key, key.upper(), n_bytes)
    assert [reuse.find(key) for key in "abc"] == ["A", None, "C"]


def test_without_room_nothing_is_kept() -> None:
    reuse = Reuse()
    reuse.keep("a", 1, 1)
    assert reuse.find("a") is None


def test_another_model_starts_with_nothing_and_all_the_room() -> None:
    reuse = Reuse(limit=10)
    first, second = object(), object()
    reuse.serve(first)
    reuse.keep("a", 1, 10)
    reuse.serve(first)
    assert reuse.find("a") == 1
    reuse.serve(second)
    assert reuse.find("a") is None
    reuse.keep("b", 2, 10)
    assert reuse.find("b") == 2
