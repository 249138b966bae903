"""Where torch's and Triton's own kernels are called: attention with its log-sum-exp, fused statistics and matching.

The Triton kernels serve CUDA tensors where Triton is installed. Their oracles, and what is used everywhere else, are
the torch versions in `lookm.statistics` and `lookm.merging`.
"""

import warnings
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import torch
from torch import Tensor

_failed: set[str] = set()


def fused(name: str, *states: Tensor) -> ModuleType | None:
    """The Triton module of this name, or None where it does not serve these tensors.

    Args:
        name: "column_sums" or "best_match".
        *states: queries, keys.
    """
    on_gpu = all(tensor.device.type == "cuda" and tensor.dtype != torch.float64 for tensor in states)
    if not on_gpu or name in _failed or find_spec("triton") is None:
        return None
    return import_module(f"lookm.kernels.{name}")


def give_up(name: str, error: Exception) -> None:
    """Use the torch version from now on, after Triton could not build a kernel for this device; warns once.

    Raises:
        Exception: `error` itself if memory ran out, which no other version will help.
    """
    if isinstance(error, torch.OutOfMemoryError):
        raise error
    _failed.add(name)
    warnings.warn(f"Triton's {name} does not run here, using torch ({type(error).__name__}: {error})", stacklevel=2)
