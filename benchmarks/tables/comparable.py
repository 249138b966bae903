"""Which runs may stand side by side: those that differ in the strategy and its budget, and in nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from benchmarks.evaluation.store import RunFolder
from lookm.errors import LookmError

if TYPE_CHECKING:
    import pandas

_SHOWN = 3  # differences named in a message
_ABSENT = "absent"


def facts_of(run: RunFolder) -> dict[str, Any]:
    """Everything but the strategy that decides a run's answers, as one flat mapping with dotted names."""
    about, configuration = run.about, run.configuration
    nested = {
        **{group: configuration[group] for group in ("model", "benchmark")},
        "semantics": configuration["strategy"].get("semantics"),
        **{name: value for name, value in configuration.items() if name not in ("model", "benchmark", "strategy")},
        "weights": about.get("weights"),
        "generation": about.get("generation", {}),
        "data": about.get("data", {}),
    }
    return dict(flattened(nested))


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """The leaves of nested mappings by their dotted names."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def differences(runs: Sequence[RunFolder], *, ignored: tuple[str, ...] = ()) -> dict[str, dict[str, str]]:
    """What the runs differ in besides strategy and budget: fact → value → name of a run that has it.

    This is the one rule of which runs may be compared. Fingerprints of data count for datasets that several runs have,
    semantics for runs that compress.

    Args:
        runs: the runs.
        ignored: beginnings of the names of facts that do not count.
    """
    facts = {run.name: facts_of(run) for run in runs}
    values: dict[str, dict[str, str]] = {}
    for key in dict.fromkeys(key for own in facts.values() for key in own):
        if key.startswith(ignored):
            continue
        for name, own in facts.items():
            if key.startswith(("data.", "semantics")) and own.get(key) is None:
                continue
            values.setdefault(key, {}).setdefault(as_text(own[key]) if key in own else _ABSENT, name)
    return {key: found for key, found in values.items() if len(found) > 1}


def check_comparable(runs: Sequence[RunFolder]) -> None:
    """Refuses runs that differ in more than strategy and budget.

    Raises:
        LookmError: what differs, in which runs, and how to choose.
    """
    different = differences(runs)
    if not different:
        return
    listed = [
        f"{key} is " + " and ".join(f"{value} in {name}" for value, name in found.items())
        for key, found in list(different.items())[:_SHOWN]
    ]
    more = f" (and {len(different) - _SHOWN} more)" if len(different) > _SHOWN else ""
    key, found = next(iter(different.items()))
    raise LookmError(
        f"runs that differ in more than strategy and budget cannot stand in one table: {'; '.join(listed)}{more}; "
        f"choose with --where, such as --where {key}={next(iter(found))}"
    )


def comparable_groups(runs: Iterable[RunFolder]) -> list[list[RunFolder]]:
    """Runs sorted into groups that may be compared; both semantics and changed samples may stand in one group."""
    groups: list[list[RunFolder]] = []
    for run in runs:
        for group in groups:
            if not differences([group[0], run], ignored=("semantics", "data.")):
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
        values = [facts_of(run) for run in chosen]
        known = sorted({name for own in values for name in own})
        if runs and key not in known:
            close = get_close_matches(key, known, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            raise LookmError(f"--where {key}: no run has a setting of this name; {hint}there are {', '.join(known)}")
        wanted = text.lower() if text.lower() in ("true", "false", "null", "none") else text
        wanted = "null" if wanted == "none" else wanted
        kept = [run for run, own in zip(chosen, values, strict=True) if as_text(own.get(key)) == wanted]
        if chosen and not kept:
            others = ", ".join(sorted({as_text(own.get(key)) for own in values}))
            raise LookmError(f"--where {key}={text}: no run has this value; there are {others}")
        chosen = kept
    return chosen


def as_text(value: Any) -> str:
    """A fact as YAML would have it: true, false, null, and everything else as it is written."""
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else "null" if value is None else str(value)


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


def common_samples(frame: pandas.DataFrame, *, datasets: bool = False) -> pandas.DataFrame:
    """The rows of samples that every run has that has any of their dataset; with `datasets`, that all runs have."""
    runs = frame.groupby("dataset", sort=False).run.transform("nunique")
    having = frame.groupby(["dataset", "sample_id"], sort=False).run.transform("nunique")
    return frame[having == (frame.run.nunique() if datasets else runs)]
