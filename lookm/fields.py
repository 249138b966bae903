"""Fields of strategies and storages: checked when one is made, changed in a copy."""

from dataclasses import dataclass, fields, replace
from math import inf
from numbers import Integral, Real
from typing import Any, ClassVar, Self

from lookm.errors import LookmError


@dataclass(frozen=True, kw_only=True)
class Named:
    """Base of what has a YAML of its own in `configs`: frozen fields, checked one by one in `__post_init__`.

    Attributes:
        name: of its YAML.
    """

    kind: ClassVar[str]
    """What messages call it."""

    name: str

    def with_fields(self, **changes: Any) -> Self:
        """A copy with some fields changed.

        Raises:
            LookmError: for a field that it does not have, or a wrong value.
        """
        known = [field.name for field in fields(self)]
        for key in changes:
            if key not in known:
                raise LookmError(f"{self.kind} {self.name!r} has no field {key!r}; it has {', '.join(known)}")
        return replace(self, **changes)

    def _check_share(self, field: str, value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) <= 1:
            raise LookmError(f"{field}={value!r} is not a share; choose a number from 0 to 1")
        if type(value) not in (int, float):  # NumPy's; the shortest number that it stands for
            object.__setattr__(self, field, float(str(value)))

    def _check_flag(self, field: str, value: object) -> None:
        if not isinstance(value, bool):
            raise LookmError(f"{field}={value!r} does not fit; choose true or false")

    def _check_above_zero(self, field: str, value: object) -> None:
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < inf:
            raise LookmError(f"{field}={value!r} does not fit; choose a number above 0")

    def _check_count(self, field: str, value: object, *, least: int = 0, most: float = inf) -> None:
        if isinstance(value, bool) or not isinstance(value, Integral) or not least <= int(value) <= most:
            end = "" if most == inf else f" to {most}"
            raise LookmError(f"{field}={value!r} does not fit; choose an integer from {least}{end}")

    def _check_positive(self, field: str, value: object, *, odd: bool = False) -> None:
        if (
            isinstance(value, bool)
            or not isinstance(value, Integral)
            or int(value) < 1
            or (odd and int(value) % 2 == 0)
        ):
            raise LookmError(f"{field}={value!r} does not fit; choose a positive {'odd ' if odd else ''}integer")
        if type(value) is not int:
            object.__setattr__(self, field, int(value))

    def _check_choice(self, field: str, choices: tuple[Any, ...]) -> None:
        if getattr(self, field) not in choices:
            named = ", ".join(map(str, choices))
            raise LookmError(f"{field}={getattr(self, field)!r} is unknown; choose one of {named}")
