"""Running out of memory: how it looks, and how to make room for another try."""

from __future__ import annotations

import gc

_WORDS = ("out of memory", "can't allocate memory", "not enough memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a GPU or on the host."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _WORDS)
    )


def make_room() -> None:
    """Gives back what is held for nothing: cycles of Python's objects, cached blocks of the GPU's allocator.

    To be called when no exception is handled any more, since its traceback holds the tensors of its frames.
    """
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
