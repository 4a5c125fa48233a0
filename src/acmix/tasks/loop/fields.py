"""What a settings class says of each setting: type, range, default, help; and the check of names and values by it."""

import re
import reprlib
import typing
from dataclasses import MISSING, dataclass, fields
from functools import cache
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any

from acmix import records
from acmix.errors import LARGEST, InputError, nearest

_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", re.IGNORECASE)


@dataclass(frozen=True)
class Range:
    """Finite numbers that a setting may be, as metadata of its type: `Annotated[float, Range(0, 1)]`.

    Attributes:
        low: The least.
        high: The greatest.
        above: low itself is not among them.
        below: high itself is not among them.
    """

    low: float
    high: float = float("inf")
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        """Whether a number is among them."""
        from_low = self.low < value if self.above else self.low <= value
        return from_low and (value < self.high if self.below else value <= self.high) and value < float("inf")

    def __str__(self) -> str:
        """The rule in words, to stand after "must be"."""
        if self.high == float("inf"):
            return ("positive" if self.low == 0 else f"above {self.low}") if self.above else f"at least {self.low}"
        if self.above:
            return f"between {self.low} and {self.high}" if self.below else f"above {self.low}, at most {self.high}"
        return f"{self.low} to {'below ' * self.below}{self.high}"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting.

    Attributes:
        name: Of the field.
        hint: Type of its value.
        range: Of numbers.
        default: MISSING where there is none.
        help: What it means.
    """

    name: str
    hint: Any
    range: Range | None
    default: Any
    help: str

    @property
    def kinds(self) -> tuple[Any, ...]:
        """Types that its value may have."""
        union = typing.get_origin(self.hint) in (UnionType, typing.Union)
        return typing.get_args(self.hint) if union else (self.hint,)

    @property
    def values(self) -> str:
        """What it may be, in words."""
        words = [records.in_words(kind) for kind in self.kinds if kind is not NoneType]
        if self.range is not None:
            words[0] += f", {self.range}"
        if NoneType in self.kinds:
            words.append("none")
        return (", or " if "," in words[0] else " or ").join(words)

    @property
    def default_in_words(self) -> str:
        """As it is typed; empty where there is none."""
        if self.default is MISSING:
            return ""
        return (
            "none"
            if self.default is None
            else str(self.default).lower()
            if self.kinds == (bool,)
            else str(self.default)
        )

    @property
    def in_words(self) -> str:
        """What it may be and is by default."""
        return self.values if self.default is MISSING else f"{self.values}; default: {self.default_in_words}"


@cache
def settings_of(kind: type) -> dict[str, Setting]:
    """The settings of a class by name, in their order; help is in the docstrings' Attributes."""
    helps: dict[str, str] = {}
    for record in reversed(kind.__mro__):
        helps |= records.described(record)
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: _setting(field.name, hints[field.name], field.default, helps) for field in fields(kind)}


def _setting(name: str, hint: Any, default: Any, helps: dict[str, str]) -> Setting:
    bounds = None
    if typing.get_origin(hint) is typing.Annotated:
        hint, bounds = typing.get_args(hint)
    return Setting(name=name, hint=hint, range=bounds, default=default, help=helps[name])


def defaults(kind: type) -> dict[str, Any]:
    """What a record means that an earlier version wrote, without the settings added since."""
    return {name: each.default for name, each in settings_of(kind).items() if each.default is not MISSING}


def check_setting(kind: type, name: str, value: Any) -> Any:
    """Check name, type and range of one setting that comes from a person or a file.

    Args:
        kind: The settings class.
        name: Of the setting.
        value: Of it; the text "none" stands for None where that may be.

    Returns:
        The value; an integer as a float where a float is meant.

    Raises:
        InputError: If there is no such setting, naming the nearest, or the value is of another type or out of range.
    """
    known = settings_of(kind)
    if name not in known:
        near = nearest(name, known)
        more = f"the nearest are {near}" if near else "acmix recipes --settings lists all"
        raise InputError(f"there is no setting {name!r}; {more}")
    setting = known[name]
    try:
        meant = records.value(setting.hint, _plain(setting, value), name)
    except InputError as error:
        raise InputError(f"{name} must be {setting.values}, got {reprlib.repr(value)}") from error
    is_number = isinstance(meant, int | float) and not isinstance(meant, bool)
    if setting.range is not None and is_number and meant not in setting.range:
        raise InputError(f"{name} must be {setting.range}, got {meant}")
    if isinstance(meant, int) and meant > LARGEST:
        raise InputError(f"{name} must be at most {LARGEST}, got {meant}")
    return meant


def _plain(setting: Setting, value: Any) -> Any:
    """What is meant by a value, of Python's own types."""
    if value == "none" and NoneType in setting.kinds:
        return None
    if isinstance(value, str) and float in setting.kinds and _NUMBER.fullmatch(value):
        # YAML takes 1e-3, without a point, for text.
        return float(value)
    if isinstance(value, bool) or not isinstance(value, Real):
        return value
    # NumPy's numbers, for instance.
    return int(value) if isinstance(value, Integral) else float(value)
