"""Weights into models: read from a folder without a second copy in memory, or made up from a seed."""

from __future__ import annotations

import importlib.util
import json
import re
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from lookm.errors import LookmError, message_of
from lookm.models.family import Family
from lookm.models.sentencepiece import load_sentencepiece
from lookm.models.source import Source, find_folder, uses_bin

_UNREADABLE = (OSError, ValueError, RuntimeError, KeyError, EOFError, SafetensorError, UnpicklingError)
NAMED = 4
"""So many tensors are named in a message; the rest is counted."""
KEPT_IN_FULL = ("vision_tower", "visual", "multi_modal_projector", "projector", "lm_head")
"""Parts that `quantization` leaves in `dtype`."""


def load(family: Family, source: Source) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model of a source and its tokenizer; the model answers greedily.

    Raises:
        LookmError: weights missing, not fitting or unreadable, or packages missing.
    """
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    if source.weights == "random":
        model, tokenizer = random_model(family.model_class, family.full_size(), source), byte_tokenizer()
    else:
        folder = find_folder(source)
        fields = read_config(folder)
        if fields.get("model_type") != family.model_type:
            raise LookmError(
                f"{folder} holds a model of type {fields.get('model_type')!r}, but {source.name} is read from type "
                f"{family.model_type!r}; give another model.path"
            )
        tokenizer = read_tokenizer(folder)
        model = read_model(family, _config(family, fields, folder), folder, source)
    model.requires_grad_(False)
    answer_greedily(model, tokenizer)
    return model, tokenizer


def _config(family: Family, fields: dict[str, Any], folder: Path) -> PreTrainedConfig:
    try:
        return family.read_config(fields)
    except (KeyError, TypeError, ValueError) as error:
        raise LookmError(f"{folder / 'config.json'} does not fit: {message_of(error)[:300]}") from None


def read_model(family: Family, config: PreTrainedConfig, folder: Path, source: Source) -> PreTrainedModel:
    """Builds a model without memory and lets its parameters be the tensors of the folder's files.

    Safetensors files are mapped into memory, so that nothing is held twice: in their own dtype on the CPU not even
    once before it is used. Only other dtypes and devices make a copy, tensor by tensor.

    Args:
        folder: complete, as `find_folder` checks it.

    Returns:
        The model in evaluation mode on its device.

    Raises:
        LookmError: tensors missing, of another shape, or unreadable; packages missing.
        Warning: the file holds tensors that are not used.
    """
    placement = _placement(source)
    try:
        with _quiet():
            loaded: Any = family.model_class.from_pretrained(
                folder,
                config=config,
                dtype=getattr(torch, source.dtype),
                key_mapping=None if family.key_map is None else dict(family.key_map),
                use_safetensors=not (source.bin_weights and uses_bin(folder)),
                weights_only=True,
                local_files_only=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **placement,
            )
    except _UNREADABLE as error:
        raise LookmError(f"the weights in {folder} cannot be read: {message_of(error)[:300]}") from None
    model, found = loaded
    _check_tensors(folder, found, family.unneeded)
    if not placement:
        model = model.to(source.device)
    evaluated: PreTrainedModel = model.eval()
    return evaluated


def random_model(model_class: type[PreTrainedModel], config: PreTrainedConfig, source: Source) -> PreTrainedModel:
    """The architecture at full size with made-up weights, the same for the same seed, dtype and kind of device."""
    device = torch.device(source.device)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), device, _quiet():
        torch.manual_seed(source.seed)
        model: PreTrainedModel = model_class._from_config(config, dtype=getattr(torch, source.dtype))
    return model.eval()


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer of single bytes, for models whose weights are made up.

    `<unk>` (also padding), `<s>` and `</s>` are 0, 1 and 2; the 256 bytes follow. Other ids decode to nothing.
    """
    special = ["<unk>", "<s>", "</s>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({token: number for number, token in enumerate([*special, *letters])}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(special)
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<unk>",
        padding_side="left",
    )


def read_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The folder's tokenizer, from `tokenizer.json` or else from sentencepiece's `tokenizer.model`.

    Raises:
        LookmError: the file is broken.
    """
    if not (folder / "tokenizer.json").is_file():
        return load_sentencepiece(folder / "tokenizer.model")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        raise LookmError(f"the tokenizer in {folder} cannot be read: {message_of(error)[:300]}") from None
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.unk_token or tokenizer.eos_token
    return tokenizer


def read_config(folder: Path) -> dict[str, Any]:
    """The folder's `config.json`.

    Raises:
        LookmError: it is no JSON object.
    """
    file = folder / "config.json"
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LookmError(f"{file} is no JSON: {error}") from None
    if not isinstance(fields, dict):
        raise LookmError(f"{file} is no JSON object")
    return fields


def answer_greedily(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Leaves nothing of a checkpoint's generation habits (sampling, penalties) but its end tokens."""
    ends = getattr(model.generation_config, "eos_token_id", None)
    if ends is None:
        ends = model.config.get_text_config().eos_token_id
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id if ends is None else ends,
        pad_token_id=tokenizer.pad_token_id,
    )


def _placement(source: Source) -> dict[str, Any]:
    """Arguments of `from_pretrained` for where weights go and how they are packed; none: to the CPU, as they are."""
    device_map: Any = source.device_map
    accelerate = importlib.util.find_spec("accelerate") is not None
    if device_map is None and source.device.startswith("cuda") and (accelerate or source.quantization):
        device_map = {"": source.device}
    for option, value, package in (
        ("quantization", source.quantization, "bitsandbytes"),
        ("quantization", source.quantization, "accelerate"),
        ("device_map", source.device_map, "accelerate"),
    ):
        if value is not None and importlib.util.find_spec(package) is None:
            raise LookmError(
                f"model.{option}={value} needs the package {package}: pip install 'lookm-harness[quantized]'"
            )
    placement = {} if device_map is None else {"device_map": device_map}
    if source.quantization is not None:
        from transformers import BitsAndBytesConfig

        placement["quantization_config"] = BitsAndBytesConfig(
            load_in_8bit=source.quantization == "8bit",
            load_in_4bit=source.quantization == "4bit",
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=getattr(torch, source.dtype),
            llm_int8_skip_modules=list(KEPT_IN_FULL),
        )
    return placement


def _check_tensors(folder: Path, found: Mapping[str, Any], unneeded: Collection[str]) -> None:
    """Raises or warns where names or shapes of the files and the model differ."""
    missing = sorted(found["missing_keys"])
    if missing:
        raise LookmError(f"{folder} lacks {_counted(missing)}; it holds another model, or only a part of this one")
    wrong = sorted(f"{name} {tuple(there)} for {tuple(wanted)}" for name, there, wanted in found["mismatched_keys"])
    if wrong:
        raise LookmError(f"{folder} has {_counted(wrong)} of another shape; its config.json belongs to another model")
    surplus = sorted(
        name for name in found["unexpected_keys"] if not any(re.search(pattern, name) for pattern in unneeded)
    )
    if surplus:
        warnings.warn(f"{folder} holds {_counted(surplus)} that the model has no place for", stacklevel=3)


def _counted(names: list[str]) -> str:
    listed = ", ".join(names[:NAMED]) + (", …" if len(names) > NAMED else "")
    return f"{len(names)} tensor{'s' if len(names) > 1 else ''} ({listed})"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' own report of keys, which is many lines long; ours is one."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)
