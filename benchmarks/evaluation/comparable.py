"""The one rule of which runs may be compared: those that differ in the strategy and its budget, and in nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_ABSENT = "absent"


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
        recorded, now: the values.
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
