"""Reading weights: nothing held twice, nothing missing unnoticed, no code from files; and making weights up."""

import importlib.util
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file

from lookm.errors import LookmError
from lookm.models.family import load_backbone
from lookm.models.llava import LlavaFamily
from lookm.models.loading import answer_greedily, random_model
from lookm.models.source import Source
from tests.models import checkpoints

COMMON: dict[str, Any] = {"label": "x", "batch_size": 1, "max_context_len": 100, "max_new_tokens": 4}
LLAVA = COMMON | {"family": "llava", "name": "llava7b", "size": "7b", "template": "llava_llama_2"}
ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    checkpoints.llava(tmp_path)
    return tmp_path


def edit(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """Changes the tensors of the folder's first file, and the index with them."""
    file = sorted(folder.glob("*.safetensors"))[0]
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file, metadata={"format": "pt"})
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    index["weight_map"] = {k: v for k, v in index["weight_map"].items() if v != file.name}
    index["weight_map"] |= dict.fromkeys(tensors, file.name)
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def first_linear(tensors: dict[str, torch.Tensor]) -> str:
    return next(name for name in sorted(tensors) if name.endswith("proj.weight"))


def test_a_local_checkpoint_is_loaded_without_the_network(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    assert load_backbone(path=folder, **LLAVA).encode("a b")


def test_missing_tensors_are_named(folder: Path) -> None:
    edit(folder, lambda tensors: tensors.pop(first_linear(tensors)))
    with pytest.raises(LookmError, match=r"lacks 1 tensor \(.*proj\.weight\); it holds another model, or only a part"):
        load_backbone(path=folder, **LLAVA)


def test_tensors_of_another_shape_are_named(folder: Path) -> None:
    edit(folder, lambda tensors: tensors.update({first_linear(tensors): torch.zeros(3, 5)}))
    with pytest.raises(LookmError, match=r"has 1 tensor \(.*proj\.weight \(3, 5\) for \(\d+, \d+\)\) of another shape"):
        load_backbone(path=folder, **LLAVA)


def test_surplus_tensors_are_told_in_a_warning(folder: Path) -> None:
    edit(folder, lambda tensors: tensors.update({f"extra.{n}": torch.zeros(1) for n in range(6)}))
    with pytest.warns(
        UserWarning, match=r"holds 6 tensors \(extra\.0, extra\.1, extra\.2, extra\.3, …\) that the model"
    ):
        backbone = load_backbone(path=folder, **LLAVA)
    assert not any(name.startswith("extra.") for name in backbone.model.state_dict())


@pytest.mark.filterwarnings("error")
def test_the_layers_that_are_not_used_are_no_surplus(tmp_path: Path) -> None:
    weights = checkpoints.mobilevlm(tmp_path)
    assert any("encoder.layers.2." in name for name in weights)
    backbone = load_backbone(family="mobilevlm", path=tmp_path, name="mobilevlm3b", template="vicuna_v1", **COMMON)
    assert not any("encoder.layers.2." in name for name in backbone.model.state_dict())


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\xff" * 100])
def test_a_broken_file_is_one_line(folder: Path, content: bytes) -> None:
    sorted(folder.glob("*.safetensors"))[0].write_bytes(content)
    with pytest.raises(LookmError, match=r"the weights in .* cannot be read") as error:
        load_backbone(path=folder, **LLAVA)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", "{", "config.json is no JSON"),
        ("config.json", "[]", "config.json is no JSON object"),
        (
            "config.json",
            '{"model_type": "gpt2"}',
            "holds a model of type 'gpt2', but llava7b is read from type 'llava'",
        ),
        ("tokenizer.json", "{", "the tokenizer in .* cannot be read"),
    ],
)
def test_wrong_descriptions_are_refused(folder: Path, file: str, content: str, message: str) -> None:
    (folder / file).write_text(content)
    with pytest.raises(LookmError, match=message):
        load_backbone(path=folder, **LLAVA)


@pytest.mark.parametrize("field", ["mm_projector_type", "mm_vision_select_feature"])
def test_another_kind_of_mobilevlm_is_refused(tmp_path: Path, field: str) -> None:
    checkpoints.mobilevlm(tmp_path)
    fields = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(fields | {field: "ldpnet"}))
    with pytest.raises(LookmError, match=f"{field} is 'ldpnet'; only checkpoints with"):
        load_backbone(family="mobilevlm", path=tmp_path, name="mobilevlm3b", template="vicuna_v1", **COMMON)


def as_pickles(folder: Path, files: int) -> None:
    """Turns a checkpoint's safetensors into `.bin` files, in InternVL-Chat's way if they are several."""
    tensors = {name: t for file in folder.glob("*.safetensors") for name, t in load_file(file).items()}
    for file in folder.glob("model*"):
        file.unlink()
    if files == 1:
        torch.save(tensors, folder / "pytorch_model.bin")
        return
    index: dict[str, str] = {}
    for number in range(files):
        part = dict(list(tensors.items())[number::files])
        torch.save(part, folder / f"pytorch_model-{number + 1:05}-of-{files:05}.bin")
        index |= dict.fromkeys(part, f"pytorch_model-{number + 1:05}-of-{files:05}.bin")
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


@pytest.mark.parametrize("files", [1, 3])
def test_pickled_weights_are_the_same_weights(folder: Path, files: int) -> None:
    plain = load_backbone(path=folder, **LLAVA).model.state_dict()
    as_pickles(folder, files)
    with pytest.raises(LookmError, match=r"add model\.bin_weights=true to read their tensors"):
        load_backbone(path=folder, **LLAVA)
    pickled = load_backbone(path=folder, bin_weights=True, **LLAVA).model.state_dict()
    assert plain.keys() == pickled.keys()
    assert all(torch.equal(plain[name], pickled[name]) for name in plain)


class Bomb:
    """Unpickled carelessly, it writes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


def test_code_in_pickled_weights_is_not_run(folder: Path, tmp_path: Path) -> None:
    as_pickles(folder, 1)
    trap = tmp_path / "ran"
    torch.save({"weight": Bomb(trap)}, folder / "pytorch_model.bin")
    with pytest.raises(LookmError, match=r"the weights in .* cannot be read"):
        load_backbone(path=folder, bin_weights=True, **LLAVA)
    assert not trap.exists()
    pickle.loads(pickle.dumps(Bomb(trap)))
    assert trap.exists()


def test_packages_that_quantization_needs_are_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(LookmError, match=r"model.quantization=8bit needs the package bitsandbytes: pip install"):
        load_backbone(path=folder, quantization="8bit", device="cuda", **LLAVA)
    with pytest.raises(LookmError, match=r"model.device_map=auto needs the package accelerate: pip install"):
        load_backbone(path=folder, device_map="auto", **LLAVA)


def test_a_device_map_gives_the_same_weights(folder: Path) -> None:
    pytest.importorskip("accelerate")
    plain = load_backbone(path=folder, **LLAVA).model.state_dict()
    mapped = load_backbone(path=folder, device_map="auto", **LLAVA).model
    assert all(torch.equal(tensor.cpu(), plain[name]) for name, tensor in mapped.state_dict().items())


def test_habits_of_the_checkpoint_do_not_change_answers(folder: Path) -> None:
    habits = {"do_sample": True, "temperature": 2.0, "repetition_penalty": 1.5, "eos_token_id": [2, 7]}
    (folder / "generation_config.json").write_text(json.dumps(habits))
    backbone = load_backbone(path=folder, **LLAVA)
    generation = backbone.model.generation_config
    assert generation.eos_token_id == [2, 7]
    assert not generation.do_sample
    assert generation.repetition_penalty in (None, 1.0)
    backbone.model.generation_config.eos_token_id = None
    answer_greedily(backbone.model, backbone.tokenizer)
    assert backbone.model.generation_config.eos_token_id == 2


def test_made_up_weights_depend_on_the_seed_alone(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    config = load_backbone(path=folder, **LLAVA).model.config
    config.text_config.vocab_size = 300
    config.image_token_id = 299

    def made(seed: int) -> dict[str, torch.Tensor]:
        torch.rand(seed)  # whatever was drawn before
        source = Source(name="llava7b", path="nowhere/at-all", weights="random", dtype="bfloat16", seed=seed)
        return random_model(LlavaFamily.model_class, config, source).state_dict()

    first, again, other = made(3), made(3), made(4)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert {tensor.dtype for tensor in first.values() if tensor.is_floating_point()} == {torch.bfloat16}

    state = torch.get_rng_state()
    monkeypatch.setattr(LlavaFamily, "full_size", lambda self: config)
    backbone = load_backbone(path="nowhere/at-all", weights="random", **LLAVA)
    assert torch.equal(torch.get_rng_state(), state)
    assert backbone.label == "x (random weights)"
    assert backbone.tokenizer.decode(backbone.encode("any é text")) == "any é text"
    assert backbone.answers(torch.tensor([[*backbone.encode("ab"), 5000]])) == ["ab"]


MEASURE = """
import re, sys
from pathlib import Path
from lookm.models.family import load_backbone
from lookm.models.source import Source

def memory(name):
    return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

fields = dict(family="llava", name="x", size="7b", template="plain", label="x")
fields |= dict(batch_size=1, max_context_len=9, max_new_tokens=1)
load_backbone(path=sys.argv[1], **fields)  # what the first call of anything costs
for dtype in ("bfloat16", "float32"):
    before = memory("RssAnon"), memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak
    backbone = load_backbone(path=sys.argv[2], dtype=dtype, **fields)
    total = sum(float(p.view(-1)[::64].sum()) for p in backbone.model.parameters())  # reads every page
    print(memory("RssAnon") - before[0], memory("VmHWM") - before[1])
    del backbone
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_loading_holds_no_second_copy(tmp_path: Path) -> None:
    checkpoints.llava(tmp_path / "small")
    sizes = {"hidden_size": 1024, "intermediate_size": 2752, "num_hidden_layers": 6}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "LLAMA", checkpoints.LLAMA | sizes)
        patch.setattr(
            checkpoints.Dice, "__call__", lambda self, *shape, **kwargs: torch.ones(shape, dtype=torch.bfloat16)
        )
        weights = checkpoints.llava(tmp_path / "large")
    size = sum(tensor.nbytes for tensor in weights.values())
    assert size > 100e6
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "small"), str(tmp_path / "large")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stderr
    (private, peak), (cast, cast_peak) = (map(int, line.split()) for line in done.stdout.splitlines())
    # As they are on disk: the files' pages are the weights, and the process owns next to nothing.
    assert private < 0.25 * size
    assert peak < 1.25 * size
    # In another dtype: one copy of twice the size, and of the files only pages that can be dropped at any time.
    assert cast < 1.15 * 2 * size
    assert cast_peak < 1.15 * 2 * size + size
