"""Expected Attention (arXiv 2510.00636, as in kvpress): what future queries will look at, by their distribution.

Queries before the rotary embedding are taken as normal with the prompt's mean and covariance, the tokens at the
beginning left out; the rotation is averaged over the positions to come. No attention is read.
"""

from dataclasses import dataclass

from torch import Tensor

from lookm.layer import Layer
from lookm.ranking import ScoreStrategy
from lookm.rotary import rotated


@dataclass(frozen=True, kw_only=True)
class ExpectedAttention(ScoreStrategy):
    """Score softmax_j(k_j · μ / √D + k_jᵀ Σ k_j / 2D) · ‖v_j‖, averaged over a group's query heads; sinks stay.

    μ and Σ are the mean and covariance of the queries before the rotary embedding, rotated by R̄, its mean over the
    next positions: μ = R̄ μ₀, Σ = R̄ Σ₀ R̄ᵀ. (1 / √D is the model's own scaling where it has another.)

    Attributes:
        future: how many positions R̄ is averaged over.
        covariance: whether Σ counts.
        values: whether ‖v_j‖ counts.
    """

    sinks: int = 4
    future: int = 512
    covariance: bool = True
    values: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_positive("future", self.future)
        self._check_flag("covariance", self.covariance)
        self._check_flag("values", self.values)

    def score_key(self, length: int) -> tuple[object, ...]:
        return type(self), self.sinks, self.future, self.covariance, self.values

    def scores(self, layer: Layer) -> Tensor:
        assert layer.scaling is not None
        rotation = layer.rotary()
        cos, sin = (states.mean(0, keepdim=True) for states in rotation.ahead(self.future))  # R̄: [1, R]
        first = self.sinks if self.sinks < layer.length else 0
        q = rotation.before(layer.queries)[:, first:]  # [Hq, L − sinks, D]
        mu = q.mean(1, keepdim=True)  # [Hq, 1, D]
        k = layer.keys.float().repeat_interleave(q.shape[0] // layer.kv_heads, 0)  # [Hq, L, D]
        logits = (k @ rotated(mu, cos, sin).transpose(1, 2)).squeeze(-1) * layer.scaling
        if self.covariance:
            centred = q - mu
            sigma = centred.transpose(1, 2) @ centred / q.shape[1]  # Σ₀: [Hq, D, D]
            sigma = rotated(rotated(sigma, cos, sin).transpose(1, 2), cos, sin)  # R̄ Σ₀ R̄ᵀ
            logits = logits + ((k @ sigma) * k).sum(-1) * layer.scaling**2 / 2
        logits[:, :first] = -float("inf")
        scores = layer.per_kv_head(logits.softmax(-1))  # [Hkv, L]
        return scores * layer.values.float().norm(dim=-1) if self.values else scores
