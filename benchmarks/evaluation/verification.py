"""Computing a part of a run again, from what its folder says, and comparing."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from benchmarks.evaluation.provenance import code_digest
from benchmarks.evaluation.records import SampleRecord
from benchmarks.evaluation.settings import CONFIGS, Settings, read_settings
from benchmarks.evaluation.store import RunFolder
from lookm.errors import LookmError

if TYPE_CHECKING:
    from benchmarks.evaluation.preparation import Dataset
    from lookm.models.backbone import Backbone

_NOT_COMPARED = ("times", "sample_id")


@dataclass(frozen=True)
class Verification:
    """What came out.

    Attributes:
        checked: samples that were computed again.
        answered: samples of the run that have an answer.
        differences: one line for each field of a sample that is not as recorded.
        code: whether the run was computed by this very state of the program; None where it does not say.
    """

    checked: int
    answered: int
    differences: tuple[str, ...]
    code: bool | None


def verify(
    path: Path,
    *,
    samples: int = 20,
    seed: int = 0,
    overrides: Mapping[str, Any] | None = None,
    load: Callable[[Settings], Backbone] | None = None,
) -> Verification:
    """Computes a random part of a run again, in the batches of the run, and compares all that was recorded.

    Nothing is written. Data and weights are first compared with their fingerprints.

    Args:
        path: the run's folder.
        samples: how many to compute again.
        seed: draws them.
        overrides: top-level values that may differ here: `device`, `data_dir`.
        load: how to get the model; by default the loader that the configuration names.

    Raises:
        LookmError: no run or no answers there, or data, weights or configuration that are not the run's.
    """
    from benchmarks.evaluation.loading import load_backbone
    from benchmarks.evaluation.opened import read_material

    folder = RunFolder(path)
    settings = settings_of(folder, overrides or {})
    material = read_material(settings)
    folder.check(
        configuration=settings.identity,
        weights=material.weights,
        data={dataset.info.dataset: dataset.data for dataset in material.datasets},
    )
    answered = [
        (dataset.info.dataset, name)
        for dataset in material.datasets
        for name, record in folder.records(dataset.info.dataset).items()
        if record.answered and name in dataset.samples
    ]
    if not answered:
        raise LookmError(f"{path} has no answers that could be computed again")
    chosen = random.Random(seed).sample(answered, min(samples, len(answered)))
    backbone = (load or load_backbone)(settings)
    differences: list[str] = []
    for dataset in material.datasets:
        name = dataset.info.dataset
        wanted = {sample for of, sample in chosen if of == name}
        recorded = folder.records(name)
        for record in _computed(settings, backbone, dataset, wanted):
            differences += _differences(name, recorded[str(record.sample_id)], record)
    code = _session(folder).get("code")
    return Verification(len(chosen), len(answered), tuple(differences), None if code is None else code == code_digest())


def settings_of(folder: RunFolder, overrides: Mapping[str, Any]) -> Settings:
    """The settings of a run, from what its `run.json` says, without the command that made it.

    Args:
        folder: the run's.
        overrides: top-level values to replace.

    Raises:
        LookmError: no run, or one that cannot be computed here.
    """
    if not folder.exists:
        raise LookmError(f"{folder.path} holds no run (no readable run.json)")
    configuration, resolved = folder.about.get("configuration"), _session(folder).get("resolved")
    if not isinstance(configuration, dict) or not isinstance(resolved, dict):
        raise LookmError(f"{folder.path} does not say how it was computed (no configuration in its run.json)")
    defaults = OmegaConf.load(CONFIGS / "config.yaml")
    assert isinstance(defaults, DictConfig)
    plain = {key: value for key, value in defaults.items() if key not in ("defaults", "hydra")}
    config = OmegaConf.create({**plain, **resolved, "dtype": configuration["dtype"], "overwrite": False})
    for group in ("model", "benchmark"):  # what decides answers is what run.json says, whatever the session was told
        config[group] = {**config[group], **{k: v for k, v in configuration[group].items() if k != "name"}}
    for key, value in overrides.items():
        if key == "data_dir":
            config.benchmark.root = _moved(str(config.benchmark.root), str(config.data_dir), str(value))
        config[key] = value
    choices = {group: str(configuration[group]["name"]) for group in ("model", "benchmark", "strategy")}
    return replace(read_settings(config, choices), results_dir=folder.path.parent)


def _moved(path: str, old: str, new: str) -> str:
    """The same place below another folder."""
    try:
        return str(Path(new) / Path(path).relative_to(old))
    except ValueError:
        raise LookmError(f"the run's data in {path} were not below its data_dir {old}") from None


def _session(folder: RunFolder) -> dict[str, Any]:
    """The session that selected most, the last of several: its batches are those of the whole run."""
    sessions = [one for one in folder.about.get("sessions", []) if isinstance(one, dict)]

    def selected(session: Mapping[str, Any]) -> tuple[float, float]:
        resolved = session.get("resolved") or {}
        named = resolved.get("datasets") or ([None] if resolved.get("task") else None)
        limit = resolved.get("limit")
        return (float("inf") if named is None else len(named)), float("inf") if limit is None else limit

    best: dict[str, Any] = {}
    for session in sessions:
        if session.get("resolved") and (not best or selected(session) >= selected(best)):
            best = session
    return best


def _computed(settings: Settings, backbone: Backbone, dataset: Dataset, wanted: set[str]) -> Iterator[SampleRecord]:
    """The wanted samples of one dataset, answered anew, each in its batch."""
    from benchmarks.evaluation.asking import answer
    from benchmarks.evaluation.reading import read_units

    root = settings.benchmark.root
    for unit in read_units([dataset], {dataset.info.dataset: wanted}, backbone, root):
        found: Sequence[SampleRecord] = unit.failures
        for part in unit.parts:
            found = [*found, *answer(backbone, [settings.strategy], dataset, part, root=root)[0]]
        yield from (record for record in found if str(record.sample_id) in wanted)


def _differences(dataset: str, recorded: SampleRecord, computed: SampleRecord) -> list[str]:
    """What differs between two records of one sample, a line for each field."""
    here, now = asdict(recorded), asdict(computed)
    return [
        f"{dataset} sample {recorded.sample_id}: {field} is {_short(now[field])} now, recorded is {_short(here[field])}"
        for field in here
        if field not in _NOT_COMPARED and here[field] != now[field]
    ]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 90 else f"{text[:87]}…"
