import json
import pickle
import random
import resource
import shutil
from dataclasses import replace

import pytest
import safetensors.torch
import timm
import torch
from PIL import Image
from timm.data import resolve_data_config

from acmix import InputError
from acmix.checkpoints import sealed
from acmix.checkpoints.classifier import Classifier
from acmix.checkpoints.stored import load_trained
from acmix.checkpoints.trained import save_trained

NAME = "acmix_resnet14_small"


@pytest.fixture(scope="module")
def original():
    model = timm.create_model(NAME, num_classes=3).eval()
    return Classifier(
        model=model,
        model_name=NAME,
        classes=("ant", "bee", "größer"),
        preprocessing=resolve_data_config({}, model=model),
        training={"metrics": {"val_top1": 0.5}},
    )


@pytest.fixture(scope="module")
def saved(original, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "best.safetensors"
    save_trained(path, original)
    return path


def rewrite(source, target, **changes):
    """Copy a checkpoint with other metadata; a change of None removes the key."""
    content = sealed.deserialize(source.read_bytes())
    metadata = json.loads(content.metadata["acmix"]) | changes
    metadata = {key: value for key, value in metadata.items() if value is not None}
    target.write_bytes(sealed.serialize(content.tensors, {"acmix": json.dumps(metadata)}))
    return target


def test_round_trip(original, saved):
    loaded = load_trained(saved)
    x = torch.randn(2, 3, 32, 32)
    assert not loaded.model.training
    assert torch.equal(loaded.model(x), original.model(x))
    assert loaded.classes == original.classes
    assert loaded.preprocessing == original.preprocessing
    assert loaded.training == original.training
    assert set(loaded.versions) == {"acmix", "torch", "timm"}
    assert loaded.transform(Image.new("RGB", (50, 40))).shape == (3, 32, 32)


@pytest.mark.parametrize(
    "arguments",
    [{"block_args": {"kernel_att": 3, "quiet_shifts": True}}, {"acmix_stages": [4]}, {"acmix_stages": []}],
    ids=str,
)
def test_what_built_the_network_builds_it_again(original, tmp_path, arguments):
    model = timm.create_model(NAME, num_classes=3, **arguments)
    save_trained(tmp_path / "quiet.safetensors", replace(original, model=model, model_arguments=arguments))
    loaded = load_trained(tmp_path / "quiet.safetensors")
    assert loaded.model_arguments == arguments
    assert str(loaded.model) == str(model)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_trained(tmp_path / "absent.safetensors")
    with pytest.raises(InputError, match="is a folder"):
        load_trained(tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 100, -100])
def test_truncated_file(saved, tmp_path, keep):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(saved.read_bytes()[:keep])
    with pytest.raises(InputError, match="damaged or not a safetensors file"):
        load_trained(path)


def test_every_changed_byte_is_refused(saved, tmp_path):
    """At random, and in all that says how the file is to be read."""
    data = saved.read_bytes()
    size = int.from_bytes(data[:8], "little")
    generator = random.Random(0)  # noqa: S311
    words = (
        b'"acmix"',
        b"acmix_header_sha256",
        b"acmix_tensors_sha256",
        b"format_version",
        b"__metadata__",
        b"ant",
        b"F32",
    )
    places = [data.index(word) + at for word in words for at in range(len(word))]
    places += [data.index(b"format_version") + 18, *range(8), *generator.sample(range(size), 60)]
    places += generator.sample(range(size, len(data)), 60)
    path = tmp_path / "changed.safetensors"
    for place in places:
        path.write_bytes(data[:place] + bytes([data[place] ^ 1 << generator.randrange(8)]) + data[place + 1 :])
        with pytest.raises(InputError, match="changed|damaged|no acmix metadata") as caught:
            load_trained(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_files_of_the_version_without_digests(original, saved, tmp_path):
    content = sealed.deserialize(saved.read_bytes())
    path = tmp_path / "old.safetensors"
    safetensors.torch.save_file(content.tensors, path, content.metadata)
    with pytest.raises(InputError, match="its digests are gone"):
        load_trained(path)
    metadata = json.loads(content.metadata["acmix"]) | {"format_version": 1}
    safetensors.torch.save_file(content.tensors, path, {"acmix": json.dumps(metadata)})
    assert load_trained(path).classes == original.classes


class Explosive:
    def __reduce__(self):
        return pytest.fail, ("a pickle was run",)


def test_pickle_is_not_run(tmp_path):
    path = tmp_path / "best.safetensors"
    path.write_bytes(pickle.dumps(Explosive()))
    with pytest.raises(InputError, match="not a safetensors file"):
        load_trained(path)


def test_foreign_safetensors(tmp_path):
    path = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(InputError, match="no acmix metadata"):
        load_trained(path)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"format_version": None}, "format_version"),
        ({"format_version": 4}, "format version 4"),
        ({"model_name": "acmix_resnet99"}, "unknown network"),
        ({"model_name": "hf-hub:somebody/model"}, "unknown network"),
        ({"model_name": "acmix_resnet26"}, "do not fit"),
        ({"model_arguments": {"checkpoint_path": "evil.pth"}}, "model_arguments"),
        ({"model_arguments": {"pretrained": True}}, "model_arguments"),
        ({"model_arguments": {"block_args": {"norm_layer": "evil"}}}, "block_args may hold heads, "),
        ({"model_arguments": {"block_args": {"heads": "evil"}}}, "do not fit"),
        ({"classes": ["ant"]}, "do not fit"),
        ({"classes": "ant"}, "classes must be a list, got 'ant'"),
        ({"classes": [3]}, r"classes\[0\] must be text, got 3"),
        ({"classes": []}, "classes must name at least one"),
        ({"preprocessing": {}}, "preprocessing must hold"),
        ({"training": None}, "training missing"),
        ({"versions": 3}, "versions must be an object, got 3"),
    ],
)
def test_tampered_metadata(saved, tmp_path, changes, rule):
    path = rewrite(saved, tmp_path / "tampered.safetensors", **changes)
    with pytest.raises(InputError, match=rule) as caught:
        load_trained(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", [{"mean": "grey"}, {"input_size": [3, 0, 0]}, {"interpolation": "psychic"}])
def test_tampered_preprocessing(original, saved, tmp_path, change):
    path = rewrite(saved, tmp_path / "tampered.safetensors", preprocessing=original.preprocessing | change)
    with pytest.raises(InputError, match="its preprocessing cannot be used"):
        load_trained(path)


def test_metadata_that_is_not_json(tmp_path):
    path = tmp_path / "foreign.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(2)}, path, {"acmix": "{"})
    with pytest.raises(InputError, match="not JSON"):
        load_trained(path)


@pytest.fixture
def full_disk():
    """A limit on the size of files, which the kernel holds like the end of a disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_failed_write_leaves_the_old_file(original, saved, tmp_path, request):
    path = shutil.copy(saved, tmp_path / "best.safetensors")
    before = path.read_bytes()
    request.getfixturevalue("full_disk")
    with pytest.raises(OSError, match="too large"):
        save_trained(path, replace(original, classes=("other", "names", "here")))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_picture_as_the_network_sees_it(original):
    image = Image.effect_noise((32, 32), 90).convert("RGB")
    seen = original.as_seen(original.transform(image))
    assert seen.mode == "RGB"
    assert seen.tobytes() == image.tobytes()


def test_tied_weights(original, tmp_path):
    """Whether the network that loads them ties them or not."""
    model = timm.create_model(NAME, num_classes=3).eval()
    model.layer1[0].bn2.weight = model.layer1[0].bn1.weight
    save_trained(tmp_path / "best.safetensors", replace(original, model=model))
    loaded, x = load_trained(tmp_path / "best.safetensors"), torch.randn(2, 3, 32, 32)
    assert torch.equal(loaded.model(x), model(x))
