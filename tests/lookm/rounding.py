"""How far float32 may be from the exact result: bounds that follow from the number of roundings, on any machine.

Float32's unit roundoff is u = 2⁻²⁴. After k roundings, in whatever order a machine adds, a result is off by at most
γ_k = k u / (1 − k u) of the magnitudes that entered it (Higham, Accuracy and Stability of Numerical Algorithms, 2002,
Lemma 3.1 and Eq. 3.4).
"""

import math

import torch
from torch import Tensor, nn

ELEMENTARY = 40  # roundings that an exp or a log stands for: 20 ulp, those of the fastest exp in torch's CPU kernels


def gamma(roundings: int) -> float:
    """γ_k."""
    u = 2.0**-24
    return roundings * u / (1 - roundings * u)


def logit_magnitudes(queries: Tensor, keys: Tensor, scaling: float | None = None) -> Tensor:
    """The largest scaling · Σ_d |q_d k_d| among the keys that a query sees: (Hq, L, D), (Hkv, L, D) → (Hq, L)."""
    heads, _, size = queries.shape
    own = keys.double().abs().repeat_interleave(heads // keys.shape[0], 0)
    sums = queries.double().abs() @ own.transpose(1, 2) * (size**-0.5 if scaling is None else scaling)
    return sums.tril().amax(-1)


def log_sum_exp_error(queries: Tensor, keys: Tensor, scaling: float | None = None) -> Tensor:
    """Absolute error of each query's log-sum-exp, (Hq, L) float64.

    A logit is D products, D additions, a scale and a shift by the maximum; the maximum is added back to the log. The
    sum of the L exps, rescaled once a block at most, has a relative error, which is an absolute one of its log.
    """
    _, length, size = queries.shape
    magnitudes = logit_magnitudes(queries, keys, scaling) + math.log(length)
    return gamma(size + 4) * magnitudes + gamma(2 * length + 2 * ELEMENTARY)


def weight_error(queries: Tensor, keys: Tensor, scaling: float | None = None) -> float:
    """Relative error of an attention weight exp(logit − log-sum-exp): that of the exponent, and of the exp itself.

    Query, scale and log-sum-exp enter one product of D + 1 terms; a factor of log₂ e is one rounding more.
    """
    lse = log_sum_exp_error(queries, keys, scaling)
    seen = logit_magnitudes(queries, keys, scaling)
    exponent = lse + gamma(queries.shape[-1] + 5) * (2 * seen + math.log(queries.shape[1]))
    return math.expm1(float(exponent.max())) + gamma(ELEMENTARY)


def sum_error(queries: Tensor, keys: Tensor, scaling: float | None = None, power: int = 1) -> float:
    """Relative error of Σ_i A[i, j] ** power over at most L queries, all terms ≥ 0."""
    return (1 + weight_error(queries, keys, scaling)) ** power * (1 + gamma(queries.shape[1] + power)) - 1


def merge_error(states: Tensor) -> float:
    """Absolute error of a merged key or value of states (H, L, D).

    A mean of at most L tokens and the kept one: L additions, a division, three scales, and cosines of absolute value
    at most 1, each of three sums of D products, two roots and two divisions.
    """
    _, length, size = states.shape
    return gamma(length + 4 + cosine_roundings(size)) * float(states.abs().max())


def cosine_roundings(size: int) -> int:
    """Roundings in a cosine of two keys (D,)."""
    return 3 * size + 4


def pass_error(model: nn.Module, length: int) -> float:
    """Error of a pass through a model with `length` tokens, as a share of the largest result.

    A path through the model is a chain of sums, each as long as the rows of a weight, and of softmaxes over the tokens,
    at most one for each weight; normalisation keeps magnitudes alike from layer to layer. Of so many roundings, k, the
    errors cancel as those of random ones do: λ √k of them remain, but for a probability of 2 exp(−λ²/2) (Higham and
    Mary, SIAM Journal on Scientific Computing 41(5), 2019); λ is 10.
    """
    chain = sum(weight[0].numel() + length for weight in model.parameters() if weight.ndim > 1)
    return gamma(math.ceil(10 * math.sqrt(chain)))


def assert_close(ours: Tensor, exact: Tensor, *, relative: float = 0.0, absolute: float | Tensor = 0.0) -> None:
    """Asserts |ours − exact| ≤ absolute + relative · |exact| element by element; what underflows may become 0."""
    assert ours.shape == exact.shape
    allowed = absolute + relative * exact.double().abs() + exact.shape[-1] * torch.finfo(torch.float32).tiny
    difference = (ours.double() - exact.double()).abs()
    assert bool((difference <= allowed).all()), (
        f"{float((difference / allowed).max()):.3g} times what rounding explains"
    )
