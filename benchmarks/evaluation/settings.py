"""One run's settings: read from a Hydra configuration, checked before anything is loaded, and named."""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig, OmegaConf

from benchmarks.benchmark import SUBSETS, Benchmark, DatasetInfo
from benchmarks.evaluation import KEYS
from benchmarks.milebench import datasets_of
from benchmarks.milebench.annotation import digest
from lookm.budgets import split_budget
from lookm.errors import LookmError, check_one_of, check_whole_number, message_of
from lookm.locations import CONFIGS

if TYPE_CHECKING:
    from lookm.strategy import Strategy

SEMANTICS = ("paper", "release")
QUESTIONS = ("seen", "unseen", "many")
MINI_QUESTIONS = 4
"""Questions about each generated context under question=many, unless benchmark.questions says otherwise."""
DTYPES = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
# What says where and how fast a run is computed, but not what it answers.
_IRRELEVANT = {
    # The weights at `path` have a fingerprint of their own: the same weights elsewhere are the same run.
    "model": {"name", "label", "path", "device", "device_map", "dtype", "batch_size", "bin_weights"},
    "benchmark": {"root"},
}


@dataclass(frozen=True)
class Settings:
    """Everything one run needs to know, checked.

    Attributes:
        model: name of the model's YAML; `model_config` holds its fields, `_target_` included.
        benchmark: the benchmark, its data not yet prepared; `benchmark_config` holds its fields.
        strategy: the strategy with α1, α2, semantics and storage; `strategy_config` holds its YAML's fields.
        question: when a question is read: "seen" by the compression, "unseen", or "many" of each context, unseen.
        limit: only so many samples of each dataset; None takes all.
        subset: which ones: "first", or "random", drawn by `seed`, alike for all models and strategies.
        seed: seed of torch, of generated data and of random subsets.
        device: "cpu" or "cuda[:index]"; dtype: "float32", "bfloat16" or "float16".
        results_dir: folder that holds one folder per run.
        deviations: fields of the four groups that differ from their YAML, such as `strategy.text_prior`.
        resolved: the whole configuration, for the record.
    """

    model: str
    model_config: dict[str, Any]
    benchmark: Benchmark
    benchmark_config: dict[str, Any]
    strategy: Strategy
    strategy_config: dict[str, Any]
    question: str
    datasets: tuple[DatasetInfo, ...]
    limit: int | None
    subset: str
    seed: int
    device: str
    dtype: str
    results_dir: Path
    overwrite: bool
    deviations: dict[str, Any]
    resolved: dict[str, Any]

    @property
    def run(self) -> str:
        """The run's name: a function of what decides its answers, and of nothing else.

        Which samples are computed (`datasets`, `task`, `limit`, `subset`) and where (`device`, `batch_size`, folders)
        leave it alone, so that a run over 20 samples is the beginning of the run over all.
        """
        parts = [self.model, self.benchmark.name, self.strategy.label.replace(" ", "")]
        if self.compresses:
            parts += [budget_name(self.strategy)] if self.has_budget else []
            parts.append(self.strategy.semantics)
        parts += [DTYPES[self.dtype]] if self.question == "seen" else [self.question, DTYPES[self.dtype]]
        if self.seed:
            parts.append(f"seed{self.seed}")
        if self.deviations:
            text = json.dumps(self.deviations, sort_keys=True, default=str)
            parts.append(hashlib.sha256(text.encode()).hexdigest()[:8])
        return "-".join(parts)

    @property
    def folder(self) -> Path:
        """Where the run's results lie."""
        return self.results_dir / self.run

    @property
    def compresses(self) -> bool:
        """Whether budget and semantics matter: not to a strategy that keeps everything even at α1 = α2 = 0."""
        return replace(self.strategy, alpha1=0.0, alpha2=0.0, budget=None).evicts

    @property
    def has_budget(self) -> bool:
        """Whether α1, α2 and a budget matter: not to a strategy whose rule alone says how much stays."""
        return self.compresses and self.strategy.fixed_size

    @property
    def is_full(self) -> bool:
        """Whether the whole cache of the whole prompt is kept as it is."""
        return not self.compresses and not self.strategy.shortens_prompt and self.strategy.stores_plainly

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the run's answers, apart from data and weights: a resumed folder must have the same."""
        strategy = {**self.strategy_config, "name": self.strategy.name}
        if self.compresses:
            strategy["semantics"] = self.strategy.semantics
        if self.has_budget:
            strategy |= {"alpha1": self.strategy.alpha1, "alpha2": self.strategy.alpha2}
            strategy |= {} if self.strategy.budget is None else {"budget": self.strategy.budget}
        if not self.strategy.stores_plainly:
            strategy["storage"] = asdict(self.strategy.storage)
        return {
            "model": {"name": self.model, **_relevant("model", self.model_config)},
            "benchmark": {"name": self.benchmark.name, **_relevant("benchmark", self.benchmark_config)},
            "strategy": strategy,
            "seed": self.seed,
            "dtype": self.dtype,
            **({} if self.question == "seen" else {"question": self.question}),
        }

    @property
    def asked_later(self) -> bool:
        """Whether contexts are compressed before their questions are read."""
        return self.question != "seen"


def budget_name(strategy: Strategy) -> str:
    """A strategy's budget as the folder names it: "0.1-0.1", "b0.2", "b256", or "b0.2-0.05-0.15" for other halves."""
    halves = f"{strategy.alpha1!r}-{strategy.alpha2!r}"
    if strategy.budget is None:
        return halves
    return f"b{strategy.budget!r}" + ("" if strategy.alpha1 == strategy.alpha2 else f"-{halves}")


def read_settings(config: DictConfig, choices: Mapping[str, str]) -> Settings:
    """Checks a composed configuration and turns it into settings; loads neither data nor weights.

    Args:
        config: the composed configuration, without or with its `hydra` node.
        choices: the chosen YAML of each group (`hydra.runtime.choices`).

    Raises:
        LookmError: a value that is not allowed, with what is.
    """
    check_values(config)
    groups = {group: _fields(config, group) for group in ("model", "benchmark", "strategy", "storage")}
    deviations = _deviations(config, choices, groups)
    if config.question == "many" and choices["benchmark"] == "mini":
        groups["benchmark"].setdefault("questions", MINI_QUESTIONS)
    benchmark = construct(groups["benchmark"])
    datasets = select_datasets(benchmark, config.datasets, config.task)
    # Last what needs torch, whose import takes a second: wrong values above are refused without it.
    from lookm.registry import build_storage, build_strategy

    budget = {"alpha1": float(config.alpha1), "alpha2": float(config.alpha2), "budget": config.budget}
    budget |= {"semantics": config.semantics, "storage": build_storage(choices["storage"], groups["storage"])}
    strategy = build_strategy(choices["strategy"], groups["strategy"] | budget)
    if strategy.missing:
        raise LookmError(strategy.missing)
    contents = {field: digest(content) for field, content in strategy.contents.items()}
    groups["strategy"] |= contents
    deviations |= {f"strategy.{field}": content for field, content in contents.items()}
    device = _device(str(config.device))
    return Settings(
        model=choices["model"],
        model_config=groups["model"],
        benchmark=benchmark,
        benchmark_config=groups["benchmark"],
        strategy=strategy,
        strategy_config=groups["strategy"],
        question=config.question,
        datasets=_without_missing(benchmark, datasets, config.datasets),
        limit=config.limit,
        subset=config.subset,
        seed=config.seed,
        device=device,
        dtype=config.dtype if config.dtype != "auto" else ("float32" if device == "cpu" else "bfloat16"),
        results_dir=Path(str(config.results_dir)),
        overwrite=config.overwrite,
        deviations=deviations,
        resolved=_resolved(config),
    )


def check_values(config: DictConfig) -> None:
    """Checks the values of a composed configuration that stand for themselves.

    Raises:
        LookmError: one that is not allowed, with what is.
    """
    for key in config:
        if key not in (*KEYS, "hydra"):
            raise LookmError(f"unknown key {str(key)!r}; the keys are {', '.join(KEYS)}")
    total = _alpha(config, "alpha1") + _alpha(config, "alpha2")
    if total > 1 + 1e-9:
        raise LookmError(f"alpha1 + alpha2 is {total:g}; the budget cannot be above 1")
    if config.budget is not None:
        split_budget(config.budget, config.alpha1, config.alpha2)
    check_one_of("semantics", config.semantics, SEMANTICS)
    check_one_of("question", config.question, QUESTIONS)
    if config.limit is not None:
        check_whole_number("limit", config.limit, 1)
    check_one_of("subset", config.subset, SUBSETS)
    if config.subset == "random" and config.limit is None:
        raise LookmError("subset=random draws `limit` samples of each dataset, but limit is null; add limit=20, say")
    check_whole_number("seed", config.seed, 0)
    if not isinstance(config.overwrite, bool):
        raise LookmError(f"overwrite must be true or false, not {config.overwrite!r}")
    check_one_of("dtype", config.dtype, ("auto", *DTYPES))
    _device_name(str(config.device))


def select_datasets(benchmark: Benchmark, datasets: Any, task: Any) -> tuple[DatasetInfo, ...]:
    """The benchmark's datasets that are among `datasets` (a name or a list of names) and belong to `task`.

    Raises:
        LookmError: a name the benchmark does not have (the message lists what it has), or nothing left.
    """
    names = [info.dataset for info in benchmark.datasets]
    named = names if datasets is None else [datasets] if isinstance(datasets, str) else list(datasets)
    for name in named:
        if name not in names:
            raise LookmError(f"unknown dataset {name!r}; {benchmark.label} has {', '.join(names)}")
    of_task = benchmark.datasets if task is None else datasets_of(str(task), benchmark.datasets)
    chosen = tuple(info for info in of_task if info.dataset in named)
    if not chosen:
        raise LookmError(f"none of the datasets {', '.join(named)} belongs to task {task}; leave one of the two out")
    return chosen


def _without_missing(benchmark: Benchmark, chosen: tuple[DatasetInfo, ...], named: Any) -> tuple[DatasetInfo, ...]:
    """The chosen datasets that are in the benchmark's folder; all of them if they were named, or if none is there."""
    present = tuple(info for info in chosen if info not in benchmark.missing)
    if named is not None or not present or len(present) == len(chosen):
        return chosen
    names = ", ".join(info.dataset for info in chosen if info in benchmark.missing)
    _say_missing(
        f"{benchmark.label} in {benchmark.root} lacks {names}: going on with the other {len(present)} datasets"
    )
    return present


@lru_cache
def _say_missing(line: str) -> None:
    """Says it once, however many jobs a sweep has."""
    print(f"warning: {line}", file=sys.stderr, flush=True)


def construct(config: Mapping[str, Any], **fields: Any) -> Any:
    """Calls a configuration's `_target_` with its fields.

    Raises:
        LookmError: no such target, or fields that it does not take; what the target raises comes through as it is.
    """
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    try:
        return instantiate(config, **fields, _convert_="all")
    except InstantiationException as error:
        if error.__cause__ is None or isinstance(error.__cause__, TypeError):
            # No such target, or fields that do not fit to it: a wrong configuration.
            raise LookmError(message_of(error)) from None
        raise error.__cause__ from None


def _alpha(config: DictConfig, name: str) -> float:
    value = config[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise LookmError(f"{name} must be a number from 0 to 1, not {value!r}")
    return float(value)


def _device_name(name: str) -> str:
    kind, _, index = name.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and (kind != "cuda" or not index.isdigit())):
        raise LookmError(f"unknown device {name!r}; choose one of auto, cpu, cuda, cuda:0 …")
    return name


def _device(name: str) -> str:
    """The device of this name on this machine; `auto` is the first CUDA device, or else the CPU."""
    kind, _, index = name.partition(":")
    if kind == "cpu":
        return name
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == "auto":
        return "cuda" if count else "cpu"
    if int(index or 0) >= count:
        raise LookmError(f"device={name} is asked for, but torch sees {count} CUDA devices; use device=cpu")
    return name


def _fields(config: DictConfig, group: str) -> dict[str, Any]:
    fields = OmegaConf.to_container(config[group], resolve=True)
    assert isinstance(fields, dict)
    return {str(key): value for key, value in fields.items()}


def _resolved(config: DictConfig) -> dict[str, Any]:
    keys = [str(key) for key in config if key != "hydra"]
    resolved = OmegaConf.to_container(OmegaConf.masked_copy(config, keys), resolve=True)
    assert isinstance(resolved, dict)
    return {str(key): value for key, value in resolved.items()}


def _relevant(group: str, fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if key not in _IRRELEVANT.get(group, ())}


def _deviations(config: DictConfig, choices: Mapping[str, str], groups: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    changed: dict[str, Any] = {}
    for group, fields in groups.items():
        file = CONFIGS / group / f"{choices[group]}.yaml"
        written: dict[str, Any] = {}
        if file.is_file():
            unmerged = OmegaConf.merge(config, {group: None}, {group: OmegaConf.load(file)})
            assert isinstance(unmerged, DictConfig)
            written = _fields(unmerged, group)
        missing = object()
        for key, value in _relevant(group, fields).items():
            if not _same(value, written.get(key, missing)):
                changed[f"{group}.{key}"] = value
    return changed


def _same(left: Any, right: Any) -> bool:
    if isinstance(left, float) and isinstance(right, float):
        return left == right or (math.isnan(left) and math.isnan(right))
    return type(left) is type(right) and left == right
