"""Runs refused, grouped and chosen by the one rule of what may be compared, and samples that they share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from benchmarks.evaluation.comparable import as_text, differences, facts_of
from benchmarks.evaluation.store import RunFolder
from lookm.errors import LookmError

if TYPE_CHECKING:
    import pandas

_SHOWN = 3  # differences named in a message


def check_comparable(runs: Sequence[RunFolder]) -> None:
    """Refuses runs that differ in more than strategy and budget.

    Raises:
        LookmError: what differs, in which runs, and how to choose.
    """
    different = differences({run.name: run.about for run in runs})
    if not different:
        return
    listed = [
        f"{key} is " + " and ".join(f"{value} in {name}" for value, name in by_value.items())
        for key, by_value in list(different.items())[:_SHOWN]
    ]
    more = f" (and {len(different) - _SHOWN} more)" if len(different) > _SHOWN else ""
    key, by_value = next(iter(different.items()))
    raise LookmError(
        f"runs that differ in more than strategy and budget cannot stand in one table: {'; '.join(listed)}{more}; "
        f"choose with --where, such as --where {key}={next(iter(by_value))}"
    )


def comparable_groups(runs: Iterable[RunFolder]) -> list[list[RunFolder]]:
    """Runs sorted into groups that may be compared; both semantics and changed samples may stand in one group."""
    groups: list[list[RunFolder]] = []
    for run in runs:
        for group in groups:
            if not differences({"one": group[0].about, "other": run.about}, ignored=("semantics", "data.")):
                group.append(run)
                break
        else:
            groups.append([run])
    return groups


def choose_runs(runs: Sequence[RunFolder], where: Mapping[str, str]) -> list[RunFolder]:
    """The runs whose facts have the given values, such as `{"dtype": "float32", "benchmark.adversarial": "true"}`.

    Raises:
        LookmError: no run has such a fact, or this value of it; what there is instead.
    """
    chosen = list(runs)
    for key, text in where.items():
        values = [facts_of(run.about) for run in chosen]
        known = sorted({name for of_run in values for name in of_run})
        if runs and key not in known:
            close = get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise LookmError(f"--where {key}: no run has a setting of this name; {hint}there are {', '.join(known)}")
        value = text.lower() if text.lower() in ("true", "false", "null", "none") else text
        value = "null" if value == "none" else value
        kept = [run for run, of_run in zip(chosen, values, strict=True) if as_text(of_run.get(key)) == value]
        if chosen and not kept:
            others = ", ".join(sorted({as_text(of_run.get(key)) for of_run in values}))
            raise LookmError(f"--where {key}={text}: no run has this value; there are {others}")
        chosen = kept
    return chosen


def check_same_samples(frame: pandas.DataFrame) -> None:
    """Refuses runs that have other samples of a dataset than each other, as after `limit=20` for some of them.

    Args:
        frame: of `read_frame`. A run that has none of a dataset's samples is let pass.

    Raises:
        LookmError: a dataset and two runs that have other samples of it, or the same sample from other data.
    """
    for dataset, group in frame.groupby("dataset", sort=False):
        samples = {str(run): set(rows.sample_id) for run, rows in group.groupby("run", sort=False)}
        (largest, most), *others = sorted(samples.items(), key=lambda item: -len(item[1]))
        for name, ids in others:
            if ids != most:
                raise LookmError(
                    f"{name} has {len(ids)} samples of {dataset} and {largest} has {len(most)}, {len(ids & most)} of "
                    "them the same; complete the shorter run, or add --common to compare the common samples only"
                )
        digests = group.groupby("sample_id", sort=False).digest.nunique()
        changed = digests[digests > 1]
        if len(changed):
            raise LookmError(
                f"sample {changed.index[0]} of {dataset} was another one in some of these runs (its text or images "
                "have changed since); run them again with overwrite=true"
            )


def common_samples(frame: pandas.DataFrame, *, datasets: bool = False) -> pandas.DataFrame:
    """The rows of samples that every run has that has any of their dataset; with `datasets`, that all runs have."""
    runs = frame.groupby("dataset", sort=False).run.transform("nunique")
    having = frame.groupby(["dataset", "sample_id"], sort=False).run.transform("nunique")
    return frame[having == (frame.run.nunique() if datasets else runs)]
