"""A strategy whose choice is known, made at another time."""

from dataclasses import dataclass
from typing import ClassVar

from baselines.h2o import H2O


@dataclass(frozen=True, kw_only=True)
class LateH2O(H2O):
    """Chooses as H2O does, but after the last layer."""

    whole_prompt: ClassVar[bool] = True
