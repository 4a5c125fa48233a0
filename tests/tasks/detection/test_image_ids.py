"""What COCO's results call image files: never two files by one id."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acmix import InputError
from acmix.tasks.detection.image_ids import image_ids


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["val/000000000139.jpg", "val/000000000285.jpg"], [139, 285]),
        (["a/1.jpg", "b/1.jpg"], ["a/1.jpg", "b/1.jpg"]),
        (["a/1.jpg", "a/01.png"], ["a/1.jpg", "a/01.png"]),
        (["a/1.jpg", "a/two.jpg"], ["a/1.jpg", "a/two.jpg"]),
        (["a/-1.jpg"], ["a/-1.jpg"]),
        (["a/\u0663.jpg"], ["a/\u0663.jpg"]),
        ([f"a/{'9' * 30}.jpg"], [f"a/{'9' * 30}.jpg"]),
        ([], []),
    ],
)
def test_numbers_are_ids_where_all_names_are(files, expected):
    assert image_ids([Path(file) for file in files]) == expected


@given(st.lists(st.sampled_from(["1", "01", "2", "a", "12", "b1"]), unique=True, max_size=6))
def test_every_file_has_an_id_of_its_own(stems):
    found = image_ids([Path(f"{stem}.png") for stem in stems])
    assert len({*found}) == len(stems)
    assert len({type(each) for each in found}) <= 1


def test_annotations_know_files_by_the_end_of_their_paths(tmp_path):
    file = tmp_path / "images.json"
    images = [{"id": 5, "file_name": "a/1.jpg"}, {"id": 6, "file_name": "b/1.jpg"}, {"id": 7, "file_name": "2.jpg"}]
    file.write_text(json.dumps({"images": images}))
    assert image_ids([Path("x/b/1.jpg"), Path("x/a/1.jpg"), Path("/y/2.jpg")], file) == [6, 5, 7]
    for name, rule in (("x/1.jpg", "hold no image of the name"), ("3.jpg", "hold no image of the name")):
        with pytest.raises(InputError, match=rule):
            image_ids([Path(name)], file)
    file.write_text(json.dumps({"images": [*images, {"id": 8, "file_name": "x/2.jpg"}]}))
    with pytest.raises(InputError, match="hold 2 images of the name"):
        image_ids([Path("x/2.jpg")], file)
    file.write_text("[" * 100_000)
    with pytest.raises(InputError, match="images.json"):
        image_ids([Path("x/2.jpg")], file)
