"""Which runs may stand in one table: those that differ in the strategy and its budget, and in nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from benchmarks.tables.collection import Run
from benchmarks.tables.experiment import facts_of
from lookm.errors import LookmError

if TYPE_CHECKING:
    import pandas

_SHOWN = 3  # differences named in a message


def check_comparable(runs: Sequence[Run]) -> None:
    """Refuses runs that differ in model, weights, benchmark, data, semantics, data type, seed or generation.

    Fingerprints of data count for datasets that several runs have, semantics for those that compress.

    Raises:
        LookmError: what differs, in which runs, and how to choose.
    """
    values: dict[str, dict[str, str]] = {}
    for run in runs:
        for key, value in facts_of(run).items():
            if key == "semantics" and value is None:
                continue
            values.setdefault(key, {}).setdefault(str(value), run.name)
    missing: Any = object()
    for run in runs:
        facts = facts_of(run)
        for key in values:
            if facts.get(key, missing) is missing and not key.startswith(("data.", "semantics")):
                values[key].setdefault("absent", run.name)
    differences = {key: found for key, found in values.items() if len(found) > 1}
    if not differences:
        return
    told = [
        f"{key} is " + " and ".join(f"{value} in {name}" for value, name in found.items())
        for key, found in list(differences.items())[:_SHOWN]
    ]
    more = f" (and {len(differences) - _SHOWN} more)" if len(differences) > _SHOWN else ""
    key, found = next(iter(differences.items()))
    raise LookmError(
        f"runs that differ in more than strategy and budget cannot stand in one table: {'; '.join(told)}{more}; "
        f"choose with --where, such as --where {key}={next(iter(found))}"
    )


def check_same_samples(table: pandas.DataFrame) -> None:
    """Refuses runs that have other samples of a dataset than each other, as after `limit=20` for some of them.

    Args:
        table: what `collect_runs` made of the runs. A run that has none of a dataset's samples is let pass.

    Raises:
        LookmError: a dataset and two runs that have other samples of it, or the same sample from other data.
    """
    for dataset, group in table.groupby("dataset", sort=False):
        samples = {str(run): set(rows.sample_id) for run, rows in group.groupby("run", sort=False)}
        (largest, most), *others = sorted(samples.items(), key=lambda item: -len(item[1]))
        for name, own in others:
            if own != most:
                raise LookmError(
                    f"{name} has {len(own)} samples of {dataset} and {largest} has {len(most)}, {len(own & most)} of "
                    "them the same; complete the shorter run, or add --common to compare the common samples only"
                )
        digests = group.groupby("sample_id", sort=False).digest.nunique()
        changed = digests[digests > 1]
        if len(changed):
            raise LookmError(
                f"sample {changed.index[0]} of {dataset} was another one in some of these runs (its text or images "
                "have changed since); run them again with overwrite=true"
            )


def common_samples(table: pandas.DataFrame) -> pandas.DataFrame:
    """The lines of samples that every run has that has any of their dataset."""
    runs = table.groupby("dataset", sort=False).run.transform("nunique")
    there = table.groupby(["dataset", "sample_id"], sort=False).run.transform("nunique")
    return table[runs == there]
