"""The one rule of which runs may be compared: those that differ in the strategy and its budget, and in nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from lookm.errors import LookmError

if TYPE_CHECKING:
    import pandas

    from benchmarks.evaluation.store import RunFolder

_ABSENT = "absent"
_SHOWN = 3  # differences named in a message


def facts_of(about: Mapping[str, Any]) -> dict[str, Any]:
    """Everything but the strategy that decides a run's answers, as one flat mapping with dotted names.

    Args:
        about: what its `run.json` says.
    """
    configuration = about.get("configuration", {})
    shared = {"question": "seen"} | {name: value for name, value in configuration.items() if name != "strategy"}
    semantics = configuration.get("strategy", {}).get("semantics")
    origin = {name: about.get(name) or {} for name in ("generation", "data")}
    return dict(flattened({**shared, "semantics": semantics, "weights": about.get("weights"), **origin}))


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """The leaves of nested mappings by their dotted names."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def difference_in(recorded: Any, now: Any, *, shared_keys_only: bool = False) -> str:
    """The first difference between two JSON values in words; empty where there is none.

    Args:
        shared_keys_only: of mappings, compare only keys that both sides have.
    """
    before, after = (
        dict(flattened(value if isinstance(value, Mapping) else {"value": value})) for value in (recorded, now)
    )
    for name in dict.fromkeys([*after, *before]):
        if shared_keys_only and not (name in before and name in after):
            continue
        old, new = (list(value) if isinstance(value, tuple) else value for value in (before.get(name), after.get(name)))
        if old != new:
            return f"{name}: {old!r} there, {new!r} now"
    return ""


def differences(runs: Mapping[str, Mapping[str, Any]], *, ignored: tuple[str, ...] = ()) -> dict[str, dict[str, str]]:
    """What runs differ in besides strategy and budget: fact → value → name of a run that has it.

    Fingerprints of data count for datasets that several runs have, semantics for runs that compress.

    Args:
        runs: name → what its `run.json` says.
        ignored: beginnings of the names of facts that do not count.
    """
    facts = {name: facts_of(about) for name, about in runs.items()}
    values: dict[str, dict[str, str]] = {}
    for key in dict.fromkeys(key for of_run in facts.values() for key in of_run):
        if key.startswith(ignored):
            continue
        for name, of_run in facts.items():
            if key.startswith(("data.", "semantics")) and of_run.get(key) is None:
                continue
            values.setdefault(key, {}).setdefault(as_text(of_run[key]) if key in of_run else _ABSENT, name)
    return {key: names for key, names in values.items() if len(names) > 1}


def comparable(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two `run.json` tell of runs that differ in nothing but the strategy and its budget."""
    return not differences({"one": one, "other": other})


def as_text(value: Any) -> str:
    """A fact as YAML would have it: true, false, null, and everything else as it is written."""
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else "null" if value is None else str(value)


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
