"""The Triton kernels in Triton's interpreter, in a process of its own: Triton decides at its import how to run."""

import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest


def test_the_kernels_equal_torch_in_the_interpreter() -> None:
    pytest.importorskip("triton")
    claims = Path(__file__).with_name("interpreted.py")
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(claims)],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-3000:]


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["column_sums", "best_match"])
def test_the_kernels_compile_for_a_gpu_that_is_not_here(name: str, dtype: str) -> None:
    triton = pytest.importorskip("triton")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = getattr(import_module(f"lookm.kernels.{name}"), f"_{name}")
    constants = {"SIZE": 80, "PADDED": 128, "KEYS": 64, "QUERIES": 32, "SQUARES": True, "EVICTED": 64, "KEPT": 32}
    constants = {key: value for key, value in constants.items() if key in kernel.arg_names}
    types = dict.fromkeys(kernel.arg_names, "i32") | dict.fromkeys(constants, "constexpr")
    types |= {"keys": f"*{dtype}", **({"queries": f"*{dtype}", "scaling": "fp32"} if name == "column_sums" else {})}
    for pointer in ("log_sum_exp", "sums", "squares", "scale", "similarity"):
        types |= {pointer: "*fp32"} if pointer in types else {}
    for pointer in ("evicted", "kept", "target"):
        types |= {pointer: "*i64"} if pointer in types else {}
    source = ASTSource(kernel, types, {(kernel.arg_names.index(key),): value for key, value in constants.items()})
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 8})
    assert ("wgmma" in compiled.asm["ptx"]) == (dtype == "bf16")  # float32 is not rounded to TF32
    assert compiled.metadata.shared < 200 * 2**10  # bytes of shared memory
