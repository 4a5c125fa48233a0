"""Whatever stands in files of annotations, they are read or refused in one line, and what is read can be used."""

import contextlib
import copy
import json

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from acmix import InputError
from acmix.data.annotated.checking import check_annotated
from acmix.data.annotated.finding import find_annotated
from acmix.data.annotated.opening import open_part
from tests.data.annotated.conftest import BOX, SQUARE

numbers = st.integers() | st.floats() | st.sampled_from([0, -1, 1, 2**63, 10**400, 1e308, float("inf"), float("nan")])
texts = st.text(max_size=8) | st.sampled_from(
    ["../a.png", "/etc/passwd", "a.png", "b.png", "", ".", "\ud800", "T3d0hQ1"]
)
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
CONTENT = {
    "images": [
        {"id": 1, "file_name": "a.png", "width": 40, "height": 30},
        {"id": 2, "file_name": "b.png", "width": 40, "height": 30},
    ],
    "categories": [{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}],
    "annotations": [
        BOX | {"segmentation": [SQUARE]},
        BOX | {"id": 2, "image_id": 2, "segmentation": {"size": [30, 40], "counts": [100, 20, 1080]}},
        BOX | {"id": 3, "image_id": 2, "segmentation": {"size": [30, 40], "counts": "T3d0hQ1"}},
    ],
}


def places(content, path=()):
    """Where a value stands, of all values."""
    yield path
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        if isinstance(value, (dict, list)):
            yield from places(value, (*path, key))
        else:
            yield (*path, key)


def replaced(content, path, value):
    if not path:
        return value
    changed = copy.copy(content)
    changed[path[0]] = replaced(content[path[0]], path[1:], value)
    return changed


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("hostile")
    for name in ("annotations", "images/train", "labels/train"):
        (root / name).mkdir(parents=True)
    for name in "ab":
        Image.new("RGB", (40, 30)).save(root / "images" / f"{name}.png")
        Image.new("RGB", (40, 30)).save(root / "images" / "train" / f"{name}.png")
    return root


def use(file):
    """Read annotations and all that follows from them."""
    with contextlib.suppress(InputError):
        for part in find_annotated(str(file)).usable:
            images = open_part(part)
            for index in range(len(images)):
                found = images.annotations(index)
                if found.segments is not None:
                    assert found.masks(*images.sizes[index].tolist()).shape[0] == len(found.boxes)
            images.fingerprint()
    with contextlib.suppress(InputError):
        check_annotated(str(file))


@given(st.lists(st.tuples(st.sampled_from([*places(CONTENT)]), values), min_size=1, max_size=2))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_any_json_is_read_or_refused(folder, changes):
    content = CONTENT
    for path, value in changes:
        try:
            content = replaced(content, path, value)
        except (TypeError, KeyError, IndexError):
            # An earlier change took the place away.
            continue
    file = folder / "annotations" / "instances_all.json"
    file.write_text(json.dumps(content))
    use(file)


words = st.sampled_from(["0", "1", "2", "0.5", "1.0", "0.1", "-0.1", "nan", "inf", "1e999", "cat", "1_0", "\ud800"])
rows = st.lists(st.lists(words, max_size=9).map(" ".join), max_size=4).map("\n".join)


@given(rows | st.text(max_size=40))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_rows_are_read_or_refused(folder, text):
    (folder / "data.yaml").write_text("train: images/train\nnames: [cat, dog]\n")
    (folder / "labels" / "train" / "a.txt").write_bytes(text.encode(errors="surrogatepass"))
    use(folder / "data.yaml")


@given(st.dictionaries(st.sampled_from(["train", "val", "names", "nc", "path", "test"]), values, max_size=6))
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_description_is_read_or_refused(folder, content):
    (folder / "labels" / "train" / "a.txt").write_text("0 0.5 0.5 0.1 0.1")
    given = {"train": "images/train", "names": ["cat", "dog"]} | content
    (folder / "data.yaml").write_bytes(yaml.safe_dump(given, allow_unicode=True).encode(errors="surrogatepass"))
    use(folder / "data.yaml")
