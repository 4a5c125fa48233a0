"""Files that name classes, as people have them."""

import json

import pytest

from acmix import InputError
from acmix.data.masks.legends import find_legend, read_legend

CVAT = "# label:color_rgb:parts:actions\nsky:0,0,255::\nsea:255,0,0::\n"
OBJECTS = {"classes": [{"name": "sky", "id": 2}, {"name": "sea", "id": 1}]}
COLOURS = {"sky": [0, 0, 255], "sea": "#ff0000"}
ADE = "Idx\tRatio\tTrain\tVal\tName\n1\t0.15\t11664\t1172\twall\n2\t0.11\t6046\t612\tbuilding, edifice\n"
KNOWN = {
    "names": ("classes.txt", "sky\n\nsea\r\n# note\n", ("sky", "sea"), None),
    "numbers": ("labels.txt", "0 sky\n7: deep sea\n", ("sky", "deep sea"), (0, 7)),
    "cvat": ("labelmap.txt", CVAT, ("sky", "sea"), (255, 0xFF0000)),
    "camvid": ("class_dict.csv", "name,r,g,b\nsky,0,0,255\nsea,255,0,0\n", ("sky", "sea"), (255, 0xFF0000)),
    "table": ("classes.csv", "id,name\n3,sky\n4,sea\n", ("sky", "sea"), (3, 4)),
    "ade": ("objectInfo150.txt", ADE, ("wall", "building, edifice"), (1, 2)),
    "list": ("classes.yaml", "[sky, sea]", ("sky", "sea"), None),
    "by value": ("id2label.json", json.dumps({"0": "sky", "1": "sea"}), ("sky", "sea"), (0, 1)),
    "by name": ("classes.yml", "sky: 0\nsea: 255\n", ("sky", "sea"), (0, 255)),
    "colours": ("colormap.json", json.dumps(COLOURS), ("sky", "sea"), (255, 0xFF0000)),
    "objects": ("classes.json", json.dumps(OBJECTS), ("sky", "sea"), (2, 1)),
}


@pytest.mark.parametrize("case", KNOWN)
def test_what_people_have(tmp_path, case):
    name, text, names, values = KNOWN[case]
    (tmp_path / name).write_text(text)
    legend = find_legend([tmp_path])
    assert (legend.file, legend.names, legend.values) == (name, names, values)
    assert legend.colours == (case in ("cvat", "camvid", "colours"))
    assert legend.ignored == ((0,) if case == "ade" else ())


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("classes.txt", "", "names no classes"),
        ("classes.txt", "sky\nsky\n", "name sky twice"),
        ("classes.json", '{"sky": 1, "sea": 1}', "value 1 twice"),
        ("classes.json", '{"sky": 70000, "sea": 1}', "numbers of 0 to 65535"),
        ("classes.json", '{"sky": [0, 0, 256], "sea": [1, 1, 1]}', "numbers of 0 to 255"),
        ("classes.json", '{"sky": 0, "sea": [1, 1, 1]}', "every class a value"),
        ("classes.json", "[" * 5000, "names no classes"),
        ("classes.yaml", "!!python/object/apply:os.system [true]", "names no classes"),
        ("classes.json", '[{"name": "sky"}]', "neither"),
        ("classes.csv", "a,b\n1,2\n", "no column name"),
        ("classes.txt", "x" * 1_000_001, "larger than"),
    ],
)
def test_what_says_nothing_is_refused_by_name(tmp_path, name, text, fault):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=fault) as refused:
        read_legend(tmp_path / name)
    assert str(refused.value).count(str(tmp_path / name)) == 1


def test_of_two_files_none_is_taken(tmp_path):
    for name in ("classes.txt", "labels.txt"):
        (tmp_path / name).write_text("sky\nsea\n")
    with pytest.raises(InputError, match=r"classes.txt and labels.txt"):
        find_legend([tmp_path])


def test_other_files_name_nothing(tmp_path):
    for name in ("README.txt", "sceneCategories.txt", "data.yaml"):
        (tmp_path / name).write_text("sky\nsea\n")
    assert find_legend([tmp_path]) is None
