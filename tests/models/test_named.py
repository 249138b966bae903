"""Backbones are loaded by name, without Hydra, with the fields of their YAML."""

import pytest

from lookm.errors import LookmError
from lookm.registry import load_model, names_of


def test_every_yaml_is_a_name() -> None:
    assert {"tiny", "llava7b", "qwen2_5vl7b"} <= set(names_of("model"))


def test_fields_are_the_yamls_unless_others_are_given() -> None:
    backbone = load_model("tiny", device="cpu", batch_size=3)
    assert (backbone.batch_size, backbone.max_new_tokens, backbone.name) == (3, 16, "tiny")
    assert str(backbone.model.dtype) == "torch.float32"


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("tinny", {}, r"model 'tinny' is unknown \(did you mean 'tiny'\?\); choose one of"),
        ("tiny", {"size": "7b"}, "model 'tiny' has no field 'size'; it has"),
        ("llava7b", {"device": "cpu", "path": "/nowhere"}, "/nowhere"),
    ],
)
def test_wrong_names_and_fields_are_refused(name: str, fields: dict[str, str], message: str) -> None:
    with pytest.raises(LookmError, match=message):
        load_model(name, **fields)
