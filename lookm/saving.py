"""Compressed caches on disk, so that images are encoded once and asked about tomorrow: one safetensors file each."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicLayer

from lookm.cache import LookOnceCache
from lookm.compressed_layer import CompressedLayer
from lookm.errors import LookmError
from lookm.prompt import Prompt
from lookm.record import LayerSizes
from lookm.registry import load_storage, load_strategy
from lookm.stopwatch import Mark
from lookm.storage.forms import Form
from lookm.storage.rows import States, StoredRow
from lookm.storage.stored import Dense, Stored
from lookm.strategy import Strategy

FORMAT = "lookm cache 1"
SIZES = ("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim", "hidden_size", "vocab_size")


def write_cache(cache: LookOnceCache, path: str | os.PathLike[str], model: PreTrainedModel) -> None:
    """Write a compressed cache, with the tokens that came after its prompt; the file is whole or not there.

    Raises:
        LookmError: for a prompt that is not encoded yet, layers with a state, a strategy that is in no YAML, or a path
            that cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    about = {
        "format": FORMAT,
        "model": fingerprint(model),
        "strategy": _strategy_settings(cache.strategy),
        "prompt_tokens": cache.record.prompt_tokens,
        "starts": cache.prompt.starts,
        "sizes": [vars(sizes) for sizes in cache.record.check_complete()],
        "note": cache.note,
        "layers": [_described(_layer(layer), f"{index}", tensors) for index, layer in enumerate(cache.layers)],
    }
    tensors["is_image"] = cache.prompt.is_image
    if isinstance(cache.rope_deltas, Tensor):
        tensors["rope_deltas"] = cache.rope_deltas
    target = Path(path)
    tensors = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as folder:
            save_file(tensors, Path(folder) / "cache", metadata={"about": json.dumps(about)})
            (Path(folder) / "cache").replace(target)
    except (OSError, SafetensorError) as error:
        raise LookmError(f"{target} cannot be written: {error}") from None


def read_cache(path: str | os.PathLike[str], model: PreTrainedModel) -> LookOnceCache:
    """Read what `write_cache` wrote, onto the model's device.

    Raises:
        LookmError: for a file that is none, or a cache of another model.
    """
    try:
        with safe_open(path, "pt", device=str(model.device)) as file:
            about = json.loads((file.metadata() or {})["about"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
        if about["format"] != FORMAT:
            raise KeyError(about["format"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise LookmError(f"{path} is no cache that lookm has written: {type(error).__name__}: {error}") from None
    ours = fingerprint(model)
    other = {name: (value, ours.get(name)) for name, value in about["model"].items() if value != ours.get(name)}
    if other:
        name, (saved, here) = next(iter(other.items()))
        raise LookmError(f"{path} is the cache of another model: its {name} is {saved}, this one's {here}")
    cache = LookOnceCache(
        _strategy(about["strategy"]), Prompt(tuple(about["starts"]), tensors["is_image"]), model.config
    )
    for layer, description in zip(cache.layers, about["layers"], strict=True):
        for name, value in _restored(description, tensors).items():
            setattr(layer, name, value)
    cache.rope_deltas = tensors.get("rope_deltas")
    cache.note = about.get("note", {})
    cache.record.layers = [LayerSizes(**{k: _tuple(v) for k, v in sizes.items()}) for sizes in about["sizes"]]
    cache.record.prefill_end = Mark.now(model.device)  # its times are gone
    cache.record.steps = [cache.record.prefill_end]
    return cache


def fingerprint(model: PreTrainedModel) -> dict[str, Any]:
    """What tells models apart: class, sizes, type of numbers, and some of the weights."""
    text = model.config.get_text_config(decoder=True)
    embeddings: Any = model.get_input_embeddings().weight
    last = [weight for weight in model.get_decoder().parameters() if weight.ndim][-1]
    some = [embeddings[-16:], last.flatten()[:4096]]
    weights = b"".join(part.detach().float().cpu().numpy().tobytes() for part in some)
    return {
        "class": type(model).__name__,
        **{name: getattr(text, name, None) for name in SIZES},
        "dtype": str(model.dtype),
        "weights": hashlib.sha256(weights).hexdigest()[:16],
    }


def _strategy_settings(strategy: Strategy) -> dict[str, Any]:
    """Fields of a strategy and of its storage, from which `load_strategy` makes an equal one."""
    settings = {field.name: getattr(strategy, field.name) for field in fields(strategy)}
    settings["storage"] = {f.name: getattr(strategy.storage, f.name) for f in fields(strategy.storage)}
    again = {name: value for name, value in settings.items() if name not in ("name", "storage")}
    if strategy.shortens_prompt or load_strategy(strategy.name, **again, storage=strategy.storage) != strategy:
        raise LookmError(f"a cache of {strategy.name} cannot be saved: no YAML makes this strategy, or it has hooks")
    return settings


def _strategy(settings: dict[str, Any]) -> Strategy:
    """The strategy that `_strategy_settings` was given."""
    return load_strategy(**{**settings, "storage": load_storage(**settings["storage"])})


def _layer(layer: Any) -> dict[str, Any]:
    """What a layer is made of."""
    if isinstance(layer, CompressedLayer):
        names: tuple[str, ...] = ("seen", "stored", "later", "padding", "queries", "is_image", "later_is_image")
        names += ("is_initialized", "dtype", "device")
    elif isinstance(layer, DynamicLayer):
        names = ("keys", "values", "cumulative_length", "is_initialized", "dtype", "device")
    else:
        raise LookmError(f"a cache with a {type(layer).__name__} cannot be saved: it has a state, no keys and values")
    return {name: getattr(layer, name) for name in names if hasattr(layer, name)}


def _described(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """A value as JSON; the tensors in it go to `tensors` under names that begin with `name`."""
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, torch.dtype):
        return {"dtype": str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"device": None}
    if isinstance(value, Dense):
        return {"dense": _described(value.states(), name, tensors)}
    if isinstance(value, Strategy):
        return {"strategy": _strategy_settings(value)}
    if isinstance(value, States):
        return {"states": [_described(part, f"{name}.{field}", tensors) for field, part in value._asdict().items()]}
    if isinstance(value, tuple | list):
        parts = [_described(part, f"{name}.{place}", tensors) for place, part in enumerate(value)]
        return {"tuple" if isinstance(value, tuple) else "list": parts}
    if isinstance(value, dict):
        return {"dict": {key: _described(part, f"{name}.{key}", tensors) for key, part in value.items()}}
    if isinstance(value, Stored | StoredRow | Form):
        kind = f"{type(value).__module__}:{type(value).__name__}"
        return {"object": kind, "fields": _described(dict(vars(value)), name, tensors)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise LookmError(f"a cache with a {type(value).__name__} in its storage cannot be saved")


def _restored(description: Any, tensors: dict[str, Tensor]) -> Any:
    """What `_described` was given."""
    if not isinstance(description, dict):
        return description
    ((kind, value),) = [pair for pair in description.items() if pair[0] != "fields"]
    if kind == "tensor":
        return tensors[value]
    if kind == "dtype":
        return getattr(torch, value)
    if kind == "device":
        return tensors["is_image"].device
    if kind == "dense":
        return Dense(_restored(value, tensors))
    if kind == "strategy":
        return _strategy(value)
    if kind == "dict":
        return {key: _restored(part, tensors) for key, part in value.items()}
    if kind == "object":
        made: Any = object.__new__(_class(value))
        for name, part in _restored(description["fields"], tensors).items():
            object.__setattr__(made, name, part)
        return made
    parts = [_restored(part, tensors) for part in value]
    return States(*parts) if kind == "states" else tuple(parts) if kind == "tuple" else parts


def _class(name: str) -> type:
    """A class of this package that stores prompts; a file cannot name any other one."""
    module = name.partition(":")[0]
    if module.startswith("lookm.storage."):
        import_module(module)
    bases: tuple[type, ...] = (Stored, StoredRow, Form)
    known = {f"{c.__module__}:{c.__name__}": c for base in bases for c in _below(base)}
    if name not in known:
        raise LookmError(f"the cache is stored as {name}, which this version of lookm does not know")
    return known[name]


def _below(base: type) -> Iterator[type]:
    below: type
    for below in base.__subclasses__():
        yield below
        yield from _below(below)


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
