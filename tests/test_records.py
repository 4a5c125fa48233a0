"""JSON as records: what was written comes back, and what is wrong is named."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acmix import InputError, records


@dataclass
class Leaf:
    colour: Literal["green", "red"]
    size: float
    holes: int = 0


@dataclass
class Tree:
    name: str
    tall: bool
    leaves: list[Leaf]
    bounds: tuple[float, float] | None = None
    years: tuple[int, ...] = ()
    roots: dict[str, Leaf | None] = field(default_factory=dict)
    notes: Any = None


FINITE = st.floats(allow_nan=False, allow_infinity=False)
LEAVES = st.builds(Leaf, st.sampled_from(["green", "red"]), FINITE, st.integers())
TREES = st.builds(
    Tree,
    name=st.text(),
    tall=st.booleans(),
    leaves=st.lists(LEAVES, max_size=3),
    bounds=st.none() | st.tuples(FINITE, FINITE),
    years=st.lists(st.integers(), max_size=3).map(tuple),
    roots=st.dictionaries(st.text(), st.none() | LEAVES, max_size=3),
    notes=st.none() | st.lists(st.integers() | st.text()),
)
TREE = {"name": "oak", "tall": True, "leaves": [{"colour": "red", "size": 2}]}


@given(TREES)
def test_what_was_written_comes_back(tree):
    assert records.read(Tree, records.parse(json.dumps(asdict(tree)))) == tree


def test_whole_numbers_are_float_where_a_field_is():
    (leaf,) = records.read(Tree, TREE).leaves
    assert repr(leaf) == "Leaf(colour='red', size=2.0, holes=0)"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"name": 3}, "name must be text, got 3"),
        ({"name": None}, "name must be text, got None"),
        ({"tall": 1}, "tall must be true or false, got 1"),
        ({"leaves": {}}, "leaves must be a list, got {}"),
        ({"leaves": [TREE["leaves"][0], 3]}, r"leaves\[1\] must be an object, got 3"),
        ({"leaves": [{"size": 1}]}, r"leaves\[0\].colour missing"),
        ({"leaves": [{"size": 1, "colour": "red", "age": 3}]}, r"leaves\[0\].age unknown"),
        ({"leaves": [{"size": "1", "colour": "red"}]}, r"leaves\[0\].size must be a number, got '1'"),
        ({"leaves": [{"size": True, "colour": "red"}]}, r"leaves\[0\].size must be a number, got True"),
        ({"leaves": [{"size": 10**400, "colour": "red"}]}, r"leaves\[0\].size must be a number, got 10+\.\.\.0+"),
        ({"leaves": [{"size": 1, "colour": "blue"}]}, r"leaves\[0\].colour must be one of green, red, got 'blue'"),
        ({"leaves": [{"size": 1, "colour": ["red"]}]}, r"leaves\[0\].colour must be one of .*, got \['red'\]"),
        (
            {"leaves": [{"size": 1, "colour": "red", "holes": 1.0}]},
            r"leaves\[0\].holes must be a whole .* 1.0",
        ),
        ({"bounds": [1]}, r"bounds must be a list of 2, got \[1\]"),
        ({"bounds": [1, "2"]}, r"bounds\[1\] must be a number, got '2'"),
        ({"bounds": "wide"}, "bounds must be a list or null, got 'wide'"),
        ({"years": [1, None]}, r"years\[1\] must be a whole number, got None"),
        ({"roots": {"deep": 3}}, "roots.deep must be an object or null, got 3"),
        ({"roots": {"deep": {}}}, "roots.deep.colour, roots.deep.size missing"),
        ({"trunk": 1, "bark": 2}, "trunk, bark unknown"),
    ],
)
def test_what_is_wrong_is_named(change, fault):
    with pytest.raises(InputError, match=f"^{fault}$"):
        records.read(Tree, TREE | change)


@pytest.mark.parametrize("content", [None, [], "oak", 3])
def test_what_is_no_object_is_refused(content):
    with pytest.raises(InputError, match="^it must be an object, got "):
        records.read(Tree, content)


def test_missing_entries_are_named_together_and_others_left_out_on_demand():
    with pytest.raises(InputError, match="^name, tall, leaves missing$"):
        records.read(Tree, {"bounds": None})
    assert records.read(Tree, TREE | {"trunk": 1}, others=True) == records.read(Tree, TREE)
    assert records.read(dict[str, Leaf], {"a": TREE["leaves"][0]}) == {"a": Leaf("red", 2.0)}


@pytest.mark.parametrize("text", ["", "{", b"\xff", "[" * 100_000, "nothing", "1" * 5000])
def test_what_is_no_json_is_refused(text):
    with pytest.raises(InputError, match=r"^not JSON \(.+\)$"):
        records.parse(text)


def test_lists_are_read_entry_by_entry():
    text = ' { "a" : [ 1 , {"b": [2]} ,[3] ] , "c":{"d":null},"e":[ ] } '
    assert [*records.entries(text)] == [("a", 1), ("a", {"b": [2]}), ("a", [3]), ("c", {"d": None})]
    assert [*records.entries("{}")] == []


NO_LISTS = [
    "",
    "[]",
    "{,}",
    "{1:2}",
    '{"a" [1]}',
    '{"a":1,}',
    '{"a":1,"a":2}',
    '{"a":[1,]}',
    '{"a":[,1]}',
    '{"a":[1 2]}',
]
BROKEN = [
    '{"a":[1]',
    '{"a":[1]}x',
    '{"a":[NaN]}',
    '{"a":[-Infinity]}',
    '{"a":[{"b":1,"b":2}]}',
    '{"a":[' + "[" * 100_000,
]


@pytest.mark.parametrize("text", [*NO_LISTS, *BROKEN])
def test_what_is_no_object_of_lists_is_refused(text):
    with pytest.raises(InputError, match="not JSON"):
        [*records.entries(text)]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values | st.lists(json_values), max_size=4), st.sampled_from([None, 2]))
def test_entries_are_what_json_says(content, indent):
    found = {key: [] if isinstance(value, list) else value for key, value in content.items()}
    for key, entry in records.entries(json.dumps(content, indent=indent)):
        if isinstance(content[key], list):
            found[key].append(entry)
        else:
            found[key] = entry
    assert found == content
