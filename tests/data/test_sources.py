import gc
import io
import pickle

import pytest
from PIL import Image

from acmix import InputError
from acmix.data import Digits, EncodedImage, ImageSource, LabelledImages, open_dataset


class Reds(ImageSource):
    classes = ("dark", "bright")
    shard_lengths = (2, 1)

    def __len__(self):
        return 3

    def name(self, index):
        return f"red {index}"

    def encoded(self, index):
        file = io.BytesIO()
        Image.new("RGB", (4, 4), (index, 0, 0)).save(file, "PNG")
        return EncodedImage(file.getvalue()[: None if index < 2 else 20], ".png", index % 2)

    def fingerprint(self):
        return "reds"


def test_reading_is_made_of_what_a_source_gives():
    source = Reds()
    image, label = source.read(1)
    assert (image.mode, image.getpixel((0, 0)), label) == ("RGB", (1, 0, 0), 1)
    assert source.with_transform(lambda image: image.size)[0] == ((4, 4), 0)
    assert source.transform is None
    with pytest.raises(InputError, match="^red 2: not a readable image"):
        source.read(2)


def test_files_are_sources(tmp_path):
    for name in ("ant", "bee"):
        (tmp_path / name).mkdir()
        for index in range(2):
            Image.new("L", (3, 2), index).save(tmp_path / name / f"{index}.JPG")
    source = pickle.loads(pickle.dumps(open_dataset(str(tmp_path)).train))  # noqa: S301
    assert isinstance(source, ImageSource)
    assert (source.classes, source.shard_lengths, len(source)) == (("ant", "bee"), None, 2)
    stored = source.encoded(1)
    assert stored.content == (tmp_path / source.name(1)).read_bytes()
    assert (stored.suffix, stored.label) == (".jpg", source.read(1)[1])
    (tmp_path / source.name(1)).unlink()
    with pytest.raises(InputError, match=f"{source.name(1)}: there is no such file"):
        source.read(1)


def test_images_in_memory_are_encoded_without_loss():
    digits = Digits()
    stored = digits.encoded(7)
    with Image.open(io.BytesIO(stored.content)) as image:
        assert image.tobytes() == digits.read(7)[0].tobytes()
    assert (stored.suffix, stored.label) == (".png", 7)


def test_images_take_no_object_each(tmp_path):
    names, files = [f"a/{index}.png" for index in range(500)], [tmp_path / f"{index}.png" for index in range(500)]
    images = LabelledImages(names, files, [index % 7 for index in range(500)], "abcdefg")
    part = images.subset(range(0, 500, 2)).with_classes(tuple("gfedcba"))
    assert [part.name(index) for index in range(250)] == names[::2]
    assert (part.place(3), part.images[3]) == (str(files[6]), files[6])
    assert [type(label) for label in (part.labels[0], images.labels[1])] == [int, int]
    # The collector knows lists and paths, one by one; what is in buffers it does not.
    assert sum(len(gc.get_referents(value)) for value in (images.names, images.images.names, images.labels)) < 20


def test_paths_and_pictures_side_by_side(tmp_path):
    Image.new("RGB", (2, 2), (9, 0, 0)).save(tmp_path / "a.png")
    images = LabelledImages("ab", [tmp_path / "a.png", Image.new("RGB", (2, 2), (8, 0, 0))], [0, 1], "cd")
    assert images.files() == [0]
    assert [images.read(index)[0].getpixel((0, 0))[0] for index in (0, 1)] == [9, 8]
    assert images.subset([1]).files() == []
    assert list(LabelledImages("a", [tmp_path / "a.png"], [0], "cd").files()) == [0]


def test_a_file_that_is_gone_is_named_by_the_fingerprint(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    images = LabelledImages(["a.png", "b.png"], [tmp_path / "a.png", tmp_path / "b.png"], [0, 1], ["x", "y"])
    with pytest.raises(InputError, match=f"^{tmp_path / 'b.png'}: cannot be read"):
        images.fingerprint()
