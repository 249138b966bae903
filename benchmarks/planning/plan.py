"""What a command is going to compute and what it will cost, before anything is spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf.errors import OmegaConfBaseException

from benchmarks import interpolation
from benchmarks.command_line import choices_of, explain
from benchmarks.evaluation.settings import CONFIGS, Settings, read_settings
from benchmarks.evaluation.store import RunFolder
from benchmarks.planning.estimation import (
    ANSWER_TOKENS,
    BANDWIDTH_SHARE,
    CHARACTERS_PER_TOKEN,
    COMPUTE_SHARE,
    Architecture,
    Gpu,
    architecture_of,
    memory_bytes,
    prompt_cost,
)
from lookm.errors import LookmError

interpolation.register()

DEFAULT_GPU = "a100"
_LARGE = 10**9  # parameters of a model that nobody runs on a CPU


@dataclass(frozen=True)
class PlannedRun:
    """One run: how many samples it selects, and how many of them have answers already."""

    settings: Settings
    selected: int
    done: int

    @property
    def left(self) -> int:
        """Samples that are still to be asked."""
        return max(0, self.selected - self.done)


@dataclass(frozen=True)
class Estimate:
    """What runs that are computed together will cost.

    Attributes:
        together: seconds, all their jobs in one process; apart: sum of the seconds with a process for each run.
        memory: peak bytes; of the GPU where there is one, else of the process.
        basis: what the numbers rest on, a line each.
    """

    together: float
    apart: float
    memory: float
    basis: tuple[str, ...]


def planned_settings(overrides: Sequence[str]) -> list[Settings]:
    """The settings of all jobs of a command, as `run.py -m` would compose them; a run may occur several times.

    Raises:
        LookmError: a wrong override, in one line.
    """
    from benchmarks.evaluation.sweep import job_overrides

    try:
        with initialize_config_dir(str(CONFIGS), version_base="1.3"):
            hydra = GlobalHydra.instance()
            assert hydra.hydra is not None
            config = hydra.hydra.compose_config(
                "config", list(overrides), run_mode=RunMode.MULTIRUN, with_log_configuration=False
            )
            jobs = [hydra.config_loader().load_sweep_config(config, list(words)) for words in job_overrides(config)]
            return [read_settings(job, choices_of(job)) for job in jobs]
    except (HydraException, OmegaConfBaseException) as error:
        raise LookmError(explain(error)) from None


def planned_runs(settings: Sequence[Settings]) -> tuple[list[PlannedRun], list[str]]:
    """The runs of a command, each once, and what is not known of them."""
    from benchmarks.evaluation.preparation import read_datasets

    runs: list[PlannedRun] = []
    unknown: dict[str, None] = {}
    for one in {one.folder: one for one in settings}.values():
        folder = RunFolder(one.folder)
        try:
            one.benchmark.prepare()
            selected = {dataset.info.dataset: set(dataset.samples) for dataset in read_datasets(one)}
            total = sum(map(len, selected.values()))
        except LookmError as error:
            unknown[str(error)] = None
            selected = {}
            total = sum(min(info.samples, one.limit or info.samples) for info in one.datasets)
        done = 0
        for info in one.datasets:
            names = selected.get(info.dataset)
            records = {} if one.overwrite else folder.records(info.dataset)
            done += sum(record.answered and (names is None or name in names) for name, record in records.items())
        runs.append(PlannedRun(one, total, done))
    return runs, list(unknown)


def groups(runs: Sequence[PlannedRun]) -> list[list[PlannedRun]]:
    """The runs of which something is left, those together that `run.py -m` computes together."""
    from benchmarks.evaluation.grouped import parts

    left = [run for run in runs if run.left]
    return [[left[place] for place in part] for part in parts([run.settings for run in left])]


def needs_gpu(settings: Settings) -> bool:
    """Whether the model is too large for the CPU that it would be computed on."""
    if settings.device != "cpu":
        return False
    try:
        return architecture_of(settings.model_config).text_parameters > _LARGE
    except LookmError:
        return False


def paired_differences(runs: Sequence[PlannedRun]) -> list[float]:
    """Official scores of samples under a compressing strategy minus those under the full cache, where both are there.

    Only runs are compared that differ in nothing but the strategy.
    """
    from benchmarks.evaluation.summary import comparable
    from benchmarks.tables.collection import collect

    folders = {run.settings.folder: RunFolder(run.settings.folder) for run in runs}
    there = [path for path, folder in folders.items() if folder.exists]
    full = [run.settings.folder for run in runs if not run.settings.compresses and run.settings.folder in there]
    if not full or len(there) < 2:
        return []
    table = collect([*there]).dropna(subset=["official"])
    scores = {
        name: rows.set_index(["dataset", "sample_id"])["official"] for name, rows in table.groupby("run", sort=False)
    }
    reference = scores.get(full[0].name)
    differences: list[float] = []
    for path in there:
        if path != full[0] and path.name in scores and comparable(folders[path].about, folders[full[0]].about):
            differences += (scores[path.name] - reference).dropna().tolist()
    return differences


def estimate(runs: Sequence[PlannedRun], gpu: Gpu) -> Estimate:
    """Estimates the cost of a group from the model's architecture.

    Raises:
        LookmError: a model that does not tell its sizes.
    """
    first = runs[0].settings
    model = architecture_of(first.model_config)
    tokens, images, told = _prompt_length(first, model)
    answers = _answer_tokens(runs)
    told.append(
        f"answers of {answers[0]:.0f} tokens ({'mean of the recorded ones' if answers[1] else 'assumed'}), "
        f"{first.dtype} on one {gpu.label} at {COMPUTE_SHARE:.0%} of its FLOP/s in prefill and {BANDWIDTH_SHARE:.0%} "
        "of its bandwidth in decode (assumed)"
    )
    strategies = [run.settings.strategy for run in runs]
    cost = prompt_cost(
        model, gpu, strategies, tokens=tokens, images=images, answer_tokens=answers[0], dtype=first.dtype
    )
    left = max(run.left for run in runs)
    longest = float(first.model_config["max_context_len"])
    batch_size = int(first.model_config["batch_size"])
    memory = memory_bytes(model, strategies, tokens=longest, batch_size=batch_size, dtype=first.dtype)
    apart = cost.apart * sum(run.left for run in runs) / len(runs)
    return Estimate(cost.together * left, apart, memory, tuple(told))


def _prompt_length(settings: Settings, model: Architecture) -> tuple[float, float, list[str]]:
    """Mean tokens and images of a prompt, and what they rest on."""
    from benchmarks.evaluation.preparation import read_datasets

    longest = int(settings.model_config["max_context_len"])
    try:
        settings.benchmark.prepare()
        datasets = read_datasets(settings)
    except LookmError:
        text = f"the data are not here: every prompt is taken to fill the context of {longest} tokens (an upper bound)"
        return longest, longest / model.image_tokens, [text]
    lengths, shown = [], []
    for dataset in datasets:
        for sample in dataset.samples.values():
            instance: Mapping[str, Any] = sample["task_instance"]
            text_tokens = len(dataset.instruction(sample) + instance["context"]) / CHARACTERS_PER_TOKEN
            images = len(instance["images_path"])
            lengths.append(min(longest, text_tokens + images * model.image_tokens))
            shown.append(min(images, longest / model.image_tokens))
    mean = sum(lengths) / len(lengths)
    return (
        mean,
        sum(shown) / len(shown),
        [f"prompts of {mean:.0f} tokens on average, 4 characters to a token (assumed)"],
    )


def _answer_tokens(runs: Sequence[PlannedRun]) -> tuple[float, bool]:
    """Mean tokens of an answer, and whether recorded answers tell."""
    recorded = [
        len(record.answer_tokens)
        for run in runs
        for info in run.settings.datasets
        for record in RunFolder(run.settings.folder).records(info.dataset).values()
        if record.answered
    ]
    if recorded:
        return sum(recorded) / len(recorded), True
    return float(min(ANSWER_TOKENS, int(runs[0].settings.model_config["max_new_tokens"]))), False
