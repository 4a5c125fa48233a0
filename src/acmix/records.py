"""JSON as records: a dataclass says what an object holds, and a value that is not of its field's type is refused.

Files come from other people. jsonargparse, the library at hand that makes dataclasses of dictionaries, takes "1" for a
number, imports classes that a dictionary names, and does not say which entry of a list is wrong.
"""

import inspect
import json
import re
import reprlib
import sys
import typing
from collections import Counter
from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar

from acmix.errors import InputError

# The kind of training of metadata, configurations and recipes that do not say it, as none did before there were others.
FIRST_TASK = "classification"

Record = TypeVar("Record")
_SPACE = re.compile(r"[ \t\n\r]*")
_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    NoneType: "null",
    list: "a list",
    dict: "an object",
}


def parse(text: str | bytes) -> Any:
    """What JSON says.

    Raises:
        InputError: If it is no JSON. The message is the fault alone: the caller knows where it came from.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON ({error})") from error


def entries(text: str) -> Iterator[tuple[str, Any]]:
    """What an object of lists in JSON says, one entry of a list after another, so that no more than one is in memory.

    Yields:
        Key and entry, for each entry of a list in the order of the text; key and value where the value is no list.

    Raises:
        InputError: If it is no JSON or no object, has a key twice, or has a number that is none. The message is the
            fault alone.
    """
    try:
        yield from _entries(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"not JSON ({error})") from error


def _entries(text: str) -> Iterator[tuple[str, Any]]:
    decoder = json.JSONDecoder(object_pairs_hook=_distinct, parse_constant=_refuse_constant)
    at, met = _after(text, 0, "{"), set[str]()
    while not _starts(text, at, "}"):
        key, at = decoder.raw_decode(text, _skip(text, _after(text, at, ",") if met else at))
        if not isinstance(key, str) or key in met:
            raise ValueError(f"{reprlib.repr(key)} {'twice' if isinstance(key, str) else 'is no key'}")
        met.add(key)
        at = _skip(text, _after(text, at, ":"))
        if not _starts(text, at, "["):
            value, at = decoder.raw_decode(text, at)
            yield key, value
            continue
        at, first = at + 1, True
        while not _starts(text, at, "]"):
            value, at = decoder.raw_decode(text, _skip(text, at if first else _after(text, at, ",")))
            first = False
            yield key, value
        at = _after(text, at, "]")
    if (end := _skip(text, _after(text, at, "}"))) < len(text):
        raise json.JSONDecodeError("Extra data", text, end)


def _skip(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _starts(text: str, at: int, mark: str) -> bool:
    return text.startswith(mark, _skip(text, at))


def _after(text: str, at: int, mark: str) -> int:
    at = _skip(text, at)
    if not text.startswith(mark, at):
        raise json.JSONDecodeError(f"Expecting {mark!r}", text, at)
    return at + 1


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"{reprlib.repr(twice)} twice in an object")
    return found


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def read(kind: type[Record], content: Any, *, others: bool = False) -> Record:
    """Make a record of what JSON says.

    Args:
        kind: A dataclass, or a list, tuple or dictionary of them. Fields are such, text, numbers, true or false, null,
            literals, anything, or unions of those that JSON tells apart.
        content: Of `parse`.
        others: Leave out entries that no field is for, instead of refusing them.

    Returns:
        The record; whole numbers are float where a field is.

    Raises:
        InputError: If an entry is missing, unknown or of another type, named as in "trainings[3].seed". The message is
            the fault alone.
    """
    return value(kind, content, "", others=others)


def value(hint: Any, content: Any, name: str, *, others: bool = False) -> Any:
    """One value of a type that a field may have, see `read`; a fault begins with its name."""
    union = typing.get_origin(hint) in (UnionType, typing.Union)
    for kind in typing.get_args(hint) if union else (hint,):
        if _takes(kind, content):
            return _make(kind, content, name, others)
    raise _fault(name, hint, content)


def _json_type(kind: Any) -> Any:
    """What JSON has in place of a type."""
    origin = typing.get_origin(kind) or kind
    return dict if is_dataclass(origin) else list if origin is tuple else origin


def _takes(kind: Any, content: Any) -> bool:
    """Whether a value is of a type, whatever it holds; true and false are no numbers."""
    if kind is float and type(content) is int:
        return abs(content) <= sys.float_info.max
    if _json_type(kind) is Literal:
        return any(content == one and type(content) is type(one) for one in typing.get_args(kind))
    return kind is Any or type(content) is _json_type(kind)


def _make(kind: Any, content: Any, name: str, others: bool) -> Any:
    origin, inner = typing.get_origin(kind) or kind, typing.get_args(kind)
    if is_dataclass(origin):
        return _record(origin, content, name, others)
    if origin is dict:
        return {key: value(inner[1], item, _within(name, key), others=others) for key, item in content.items()}
    if origin in (list, tuple):
        kinds = inner if origin is tuple and inner[-1] is not ... else inner[:1] * len(content)
        if len(kinds) != len(content):
            raise _fault(name, f"a list of {len(kinds)}", content)
        pairs = enumerate(zip(kinds, content, strict=True))
        return origin(value(each, item, f"{name}[{index}]", others=others) for index, (each, item) in pairs)
    return float(content) if kind is float else content


def _record(kind: Any, content: dict[str, Any], name: str, others: bool) -> Any:
    known = {field.name: field for field in fields(kind)}
    needed = [key for key, field in known.items() if field.default is field.default_factory is MISSING]
    if missing := [_within(name, key) for key in needed if key not in content]:
        raise InputError(f"{', '.join(missing)} missing")
    if not others and (unknown := [_within(name, key) for key in content if key not in known]):
        raise InputError(f"{', '.join(unknown)} unknown")
    hints = typing.get_type_hints(kind)
    given = [key for key in known if key in content]
    return kind(**{key: value(hints[key], content[key], _within(name, key), others=others) for key in given})


def _within(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def _fault(name: str, expected: Any, content: Any) -> InputError:
    """What a value must be, in words, and what it is."""
    if not isinstance(expected, str):
        union = typing.get_origin(expected) in (UnionType, typing.Union)
        expected = " or ".join(map(in_words, typing.get_args(expected) if union else (expected,)))
    return InputError(f"{name or 'it'} must be {expected}, got {reprlib.repr(content)}")


def in_words(kind: Any) -> str:
    """A type that a field may have, for a person: "a whole number", "one of a, b"."""
    if _json_type(kind) is Literal:
        return f"one of {', '.join(map(str, typing.get_args(kind)))}"
    return _WORDS[_json_type(kind)]


def described(documented: Any) -> dict[str, str]:
    """What a docstring says of arguments or attributes, by name."""
    found = re.findall(r"^    (\w+): (.*(?:\n        .*)*)", inspect.getdoc(documented) or "", re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}
