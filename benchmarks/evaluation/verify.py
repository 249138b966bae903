"""Whether a run is what its folder says: a part of it computed again, or two folders compared.

Two runs of the same configuration are the same in everything but the times. Times are `times` of each record in
`samples.jsonl` (milliseconds, and the batch they were measured in) and `sessions` of `run.json` (who computed when, on
what). All other bytes of all files count.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from benchmarks.evaluation.provenance import code_digest
from benchmarks.evaluation.records import SampleRecord
from benchmarks.evaluation.settings import Settings, read_settings
from benchmarks.evaluation.store import RunFolder
from benchmarks.files import read_json
from lookm.errors import LookmError
from lookm.locations import CONFIGS

if TYPE_CHECKING:
    from benchmarks.milebench.dataset import Dataset
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
) -> Verification:
    """Computes a random part of a run again, in the batches of the run, and compares all that was recorded.

    Nothing is written. Data and weights are first compared with their fingerprints.

    Args:
        overrides: top-level values that may differ here: `device`, `data_dir`.

    Raises:
        LookmError: no run or no answers there, or data, weights or configuration that are not the run's.
    """
    from benchmarks.evaluation.active import read_material
    from benchmarks.evaluation.run import load_backbone

    folder = RunFolder(path)
    settings = settings_of(folder, overrides or {})
    material = read_material(settings)
    folder.check(
        configuration=settings.identity,
        weights=material.weights,
        data={dataset.name: dataset.data for dataset in material.datasets},
    )
    answered = [
        (dataset.name, name)
        for dataset in material.datasets
        for name, record in folder.records(dataset.name).items()
        if record.answered and name in dataset.samples
    ]
    if not answered:
        raise LookmError(f"{path} has no answers that could be computed again")
    chosen = random.Random(seed).sample(answered, min(samples, len(answered)))
    backbone = load_backbone(settings)
    differences: list[str] = []
    for dataset in material.datasets:
        names = {sample for of, sample in chosen if of == dataset.name}
        recorded = folder.records(dataset.name)
        for record in _computed(settings, backbone, dataset, names):
            differences += _differences(dataset.name, recorded[str(record.sample_id)], record)
    code = _session(folder).get("code")
    return Verification(len(chosen), len(answered), tuple(differences), None if code is None else code == code_digest())


def settings_of(folder: RunFolder, overrides: Mapping[str, Any]) -> Settings:
    """The settings of a run, from what its `run.json` says, without the command that made it.

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
    choices["storage"] = str(configuration["strategy"].get("storage", {}).get("name", "plain"))
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


def _computed(settings: Settings, backbone: Backbone, dataset: Dataset, names: set[str]) -> Iterator[SampleRecord]:
    """The named samples of one dataset, answered anew, each in its batch."""
    from benchmarks.evaluation.batches import read_batches
    from benchmarks.evaluation.generate import answer

    root = settings.benchmark.root
    for batch in read_batches([dataset], {dataset.name: names}, backbone, root):
        records: Sequence[SampleRecord] = batch.failures
        for part in batch.parts:
            records = [*records, *answer(backbone, [settings.strategy], dataset, part, root=root)[0]]
        yield from (record for record in records if str(record.sample_id) in names)


def _differences(dataset: str, recorded: SampleRecord, computed: SampleRecord) -> list[str]:
    """What differs between two records of one sample, a line for each field."""
    before, now = asdict(recorded), asdict(computed)
    sample = f"{dataset} sample {recorded.sample_id}"
    return [
        f"{sample}: {field} is {_short(now[field])} now, recorded is {_short(before[field])}"
        for field in before
        if field not in _NOT_COMPARED and before[field] != now[field]
    ]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 90 else f"{text[:87]}…"


def timeless(folder: Path) -> dict[str, bytes]:
    """The files of a run folder by their path in it, without the times.

    Raises:
        LookmError: no run, or a line of `samples.jsonl` that is no record.
    """
    if not isinstance(read_json(folder / "run.json"), dict):
        raise LookmError(f"{folder} holds no run")
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): _timeless_file(path) for path in files}


def difference(one: Path, other: Path) -> str:
    """The first file in which two run folders differ, and where; empty if they agree in all but the times.

    Raises:
        LookmError: as `timeless`.
    """
    left, right = timeless(one), timeless(other)
    for name in sorted({*left, *right}):
        if name not in left or name not in right:
            return f"{name} is only in {one if name in left else other}"
        if left[name] != right[name]:
            lines = zip(left[name].split(b"\n"), right[name].split(b"\n"), strict=False)
            place = next((number for number, (a, b) in enumerate(lines, 1) if a != b), None)
            return f"{name} differs" + (f" in line {place}" if place else " in length")
    return ""


def _timeless_file(path: Path) -> bytes:
    if path.name == "run.json":
        about = {key: value for key, value in read_json(path).items() if key != "sessions"}
        return json.dumps(about, ensure_ascii=False, indent=2).encode()
    if path.suffix == ".jsonl":
        *lines, rest = path.read_bytes().split(b"\n")
        if rest:
            raise LookmError(f"{path} ends in a torn line; run it again to mend it")
        try:
            records = [SampleRecord.from_line(line) for line in lines]
        except ValueError as error:
            raise LookmError(f"{path} has a line that is no record ({error}); run it again to mend it") from None
        return "".join(replace(record, times=None).to_line() for record in records).encode()
    return path.read_bytes()
