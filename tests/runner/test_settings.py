"""Values are checked before anything is loaded, and a run's folder is a function of what decides its answers."""

from pathlib import Path

import pytest
import torch

from baselines.sparsemm import save_head_scores
from lookm.errors import LookmError
from tests.runner.conftest import MakeSettings
from tests.runner.small_benchmark import CHOICE, NEEDLE, ROUGE


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("alpha1=1.5", "alpha1 must be a number from 0 to 1, not 1.5"),
        ("alpha2=-0.1", "alpha2 must be a number from 0 to 1, not -0.1"),
        ("alpha1=much", "alpha1 must be a number from 0 to 1, not 'much'"),
        ("alpha1=true", "alpha1 must be a number from 0 to 1, not True"),
        ("alpha1=nan", "alpha1 must be a number from 0 to 1, not nan"),
        ("alpha1=0.95", "alpha1 + alpha2 is 1.05; the budget cannot be above 1"),
        (
            "budget=0",
            "budget=0 does not fit; choose a share of the prompt above 0 and up to 1, such as 0.2, or a whole",
        ),
        ("budget=1.5", "budget=1.5 does not fit; choose a share of the prompt above 0 and up to 1, such as 0.2, or a"),
        ("budget=much", "budget='much' does not fit"),
        ("budget=true", "budget=True does not fit"),
        ("limit=0", "limit must be a whole number of at least 1, not 0"),
        ("limit=2.5", "limit must be a whole number of at least 1, not 2.5"),
        ("subset=last", "unknown subset 'last'; choose one of first, random"),
        ("subset=random", "subset=random draws `limit` samples of each dataset, but limit is null; add limit=20, say"),
        ("seed=-1", "seed must be a whole number of at least 0, not -1"),
        ("semantics=relese", "unknown semantics 'relese'; choose one of paper, release"),
        ("dtype=int8", "unknown dtype 'int8'; choose one of auto, float32, bfloat16, float16"),
        ("device=tpu", "unknown device 'tpu'; choose one of auto, cpu, cuda, cuda:0 …"),
        ("device=cuda:x", "unknown device 'cuda:x'"),
        ("device=cpu:1", "unknown device 'cpu:1'"),
        ("overwrite=maybe", "overwrite must be true or false, not 'maybe'"),
        ("datasets=[Nothing]", f"unknown dataset 'Nothing'; small benchmark has {CHOICE}, {ROUGE}, {NEEDLE}"),
        ("task=T-9", "'T-9'"),
        ("strategy.merge=best", "merge='best' is unknown; choose one of none, averaged, pivotal, weighted"),
    ],
)
def test_a_wrong_value_is_named_with_what_is_allowed(settings_of: MakeSettings, override: str, message: str) -> None:
    with pytest.raises(LookmError) as error:
        settings_of(override)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_budget_that_nothing_splits_is_refused(settings_of: MakeSettings) -> None:
    with pytest.raises(
        LookmError, match=r"budget=0\.2 is split as alpha1 : alpha2, which are both 0; give one of them"
    ):
        settings_of("budget=0.2", "alpha1=0", "alpha2=0")


def test_a_budget_of_exactly_one_is_allowed(settings_of: MakeSettings) -> None:
    assert settings_of("alpha1=0.7", "alpha2=0.3").strategy.nominal_budget == pytest.approx(1)


def test_cuda_is_refused_where_there_is_none(settings_of: MakeSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(LookmError, match="device=cuda is asked for, but torch sees 0 CUDA devices; use device=cpu"):
        settings_of("device=cuda")
    assert settings_of("device=auto").device == "cpu"


def test_auto_means_float32_on_the_cpu_and_bfloat16_on_cuda(
    settings_of: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings_of("device=cpu").dtype == "float32"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    settings = settings_of("device=auto")
    assert (settings.device, settings.dtype) == ("cuda", "bfloat16")


@pytest.mark.parametrize(
    ("overrides", "chosen"),
    [
        ((), [CHOICE, ROUGE, NEEDLE]),
        ((f"datasets={NEEDLE}",), [NEEDLE]),
        ((f"datasets=[{NEEDLE},{CHOICE}]",), [CHOICE, NEEDLE]),
        (("task=S-3",), [ROUGE]),
        (("task=NH",), [NEEDLE]),
        (("task=S-3", f"datasets=[{ROUGE},{NEEDLE}]"), [ROUGE]),
    ],
)
def test_datasets_and_task_select(settings_of: MakeSettings, overrides: tuple[str, ...], chosen: list[str]) -> None:
    assert [info.dataset for info in settings_of(*overrides).datasets] == chosen


def test_a_selection_of_nothing_is_refused(settings_of: MakeSettings) -> None:
    with pytest.raises(LookmError, match=f"none of the datasets {NEEDLE} belongs to task T-1"):
        settings_of(f"datasets={NEEDLE}", "task=T-1")


@pytest.mark.parametrize(
    "overrides",
    [
        ("limit=2",), ("limit=2", "subset=random"), (f"datasets={NEEDLE}",), ("task=T-1",), ("model.batch_size=1",),
        ("overwrite=true",), ("data_dir=elsewhere",),
    ],
)  # fmt: skip
def test_what_is_computed_where_leaves_the_folder_alone(settings_of: MakeSettings, overrides: tuple[str, ...]) -> None:
    assert settings_of(*overrides).run == settings_of().run
    assert settings_of(*overrides).identity == settings_of().identity


@pytest.mark.parametrize(
    "override",
    [
        "strategy=h2o", "alpha1=0.05", "alpha2=0.05", "semantics=release", "strategy.text_prior=strict", "seed=1",
        "budget=0.2", "budget=256", "dtype=bfloat16", "model.weights_seed=1", "model.max_new_tokens=5",
    ],
)  # fmt: skip
def test_what_decides_the_answers_has_a_folder_of_its_own(settings_of: MakeSettings, override: str) -> None:
    assert settings_of(override).run != settings_of().run
    assert settings_of(override).identity != settings_of().identity


def test_the_folder_is_readable_and_a_function_of_the_values(settings_of: MakeSettings) -> None:
    name = settings_of("alpha1=0.05").run
    assert name.startswith("random-small-tp_pmerge-0.05-0.1-paper-fp32")
    assert settings_of("alpha1=0.050").run == name
    assert settings_of("alpha1=0.05", "strategy.text_prior=union").run == name


def test_a_budget_names_the_folder_and_equal_ratios_are_one_run(settings_of: MakeSettings) -> None:
    assert "-b0.2-paper-" in settings_of("budget=0.2").run
    assert settings_of("budget=0.2", "alpha1=0.4", "alpha2=0.4").run == settings_of("budget=0.2").run
    assert settings_of("budget=0.2", "alpha1=0.4", "alpha2=0.4").identity == settings_of("budget=0.2").identity
    assert "-b256-0.25-0.75-" in settings_of("budget=256", "alpha1=0.1", "alpha2=0.3").run
    assert "budget" not in settings_of().identity["strategy"]


def test_the_full_cache_knows_no_budget_and_no_semantics(settings_of: MakeSettings) -> None:
    plain, other = settings_of("strategy=full"), settings_of("strategy=full", "alpha1=0.3", "budget=9")
    assert not plain.compresses
    assert other.run == plain.run
    assert other.identity == plain.identity


def test_a_rule_without_a_budget_is_one_run_at_all_budgets(settings_of: MakeSettings) -> None:
    runs = {settings_of("strategy=corm", *words).run for words in ((), ("budget=0.2",), ("alpha1=0.3",))}
    assert len(runs) == 1
    assert settings_of("strategy=corm", "semantics=release").run not in runs
    assert settings_of("strategy=corm").compresses
    assert not {"alpha1", "budget"} & settings_of("strategy=corm", "budget=0.2").identity["strategy"].keys()


def test_a_file_of_head_scores_is_known_by_its_content_wherever_it_lies(
    settings_of: MakeSettings, tmp_path: Path
) -> None:
    first, moved, other = (tmp_path / name for name in ("first.json", "moved.json", "other.json"))
    for path, scores in ((first, [[1.0, 2.0]]), (moved, [[1.0, 2.0]]), (other, [[1.0, 3.0]])):
        save_head_scores(path, torch.tensor(scores))
    one, same, new = (settings_of("strategy=sparsemm", f"strategy.scores={path}") for path in (first, moved, other))
    assert (one.folder, one.identity) == (same.folder, same.identity)
    assert one.folder != new.folder
    assert one.identity != new.identity


def test_shipped_groups_need_no_hash_in_the_name(settings_of: MakeSettings) -> None:
    assert settings_of("model=tiny").deviations.keys() == settings_of("model=tiny", "seed=3").deviations.keys()
    assert not [key for key in settings_of("model=tiny").deviations if key.startswith(("model", "strategy"))]
    assert (
        settings_of("model=tiny", "model.batch_size=2", "model.max_new_tokens=3").deviations["model.max_new_tokens"]
        == 3
    )
