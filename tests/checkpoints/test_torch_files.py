"""Torch files with other people's objects in them: never made, never in the way; damaged ones end in one line."""

import argparse
import collections
import concurrent.futures
import datetime
import enum
import functools
import io
import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from acmix import InputError
from acmix.checkpoints import torch_files


class Configuration(dict):
    """As yacs' and Lightning's: a dictionary with attributes."""

    def __init__(self, **entries):
        super().__init__(**entries)
        self.frozen = True


class Plain:
    def __init__(self):
        self.path = Path("runs")


class Slotted:
    __slots__ = ("value",)

    def __init__(self):
        self.value = np.float32(3)


class Kind(enum.Enum):
    ONE = 1


BESIDE = {
    "namespace": argparse.Namespace(model="resnet", output=Path("runs"), nested=argparse.Namespace(), kind=Kind.ONE),
    "configuration": Configuration(depth=Configuration(layers=[1, 2])),
    "object": Plain(),
    "slots": Slotted(),
    "numbers": {"best": np.float64(0.5), "seen": np.int64(3), "curve": np.arange(3.0), "kind": np.dtype("f4")},
    "default": collections.defaultdict(list, {"a": [1]}),
    "deque": collections.deque([1.0, 2.0], maxlen=5),
    "function": functools.partial(torch.nn.functional.gelu, approximate="tanh"),
    "class": Plain,
    "random": np.random.default_rng(0),
    "times": [datetime.datetime(2026, 1, 1), datetime.timedelta(3)],
    "plain": [torch.float16, torch.device("cpu"), torch.Size([3]), range(3), 1 + 2j, 10**40, {frozenset({1})}, b"a"],
}


def saved(content, *, zipped=True):
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("beside", BESIDE)
def test_objects_beside_tensors(beside, zipped):
    content = torch_files.read(saved({"epoch": 3, "args": BESIDE[beside], "weight": torch.ones(3)}, zipped=zipped))
    assert torch.equal(content["weight"], torch.ones(3))
    assert content["epoch"] == 3
    assert torch_files.origin(content) is None


def test_stand_ins_say_their_names():
    content = torch_files.read(saved({"a": argparse.Namespace(b=3), "c": np.float64(3), "d": torch.nn.Linear(2, 2)}))
    assert torch_files.origin(content["a"]) == "argparse.Namespace"
    assert torch_files.origin(content["c"]).endswith("multiarray.scalar")
    assert torch_files.origin(content["d"]) == "torch.nn.modules.linear.Linear"


def test_old_files_with_a_whole_network_are_refused():
    with pytest.raises(InputError, match="Only persistent_load of storage is allowed"):
        torch_files.read(saved(torch.nn.Linear(2, 2), zipped=False))


class Attack:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    "attack",
    [
        Attack(os.mkdir, "made"),
        Attack(eval, "__import__('os').mkdir('made')"),
        Attack(exec, "import os; os.mkdir('made')"),
        Attack(Path.mkdir, Path("made")),
        Attack(functools.reduce, getattr, ["made"]),
        Attack(open, "made", "w"),
    ],
    ids=["mkdir", "eval", "exec", "method", "reduce", "open"],
)
def test_nothing_in_a_file_runs(tmp_path, monkeypatch, attack, zipped):
    monkeypatch.chdir(tmp_path)
    try:
        content = torch_files.read(saved({"weight": torch.ones(3), "attack": attack}, zipped=zipped))
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert torch_files.origin(content["attack"]) is not None
    assert list(tmp_path.iterdir()) == []


def test_allowed_names_are_not_left_behind():
    before = set(torch.serialization.get_safe_globals())
    torch_files.read(saved({"args": argparse.Namespace()}))
    assert set(torch.serialization.get_safe_globals()) == before
    with torch.serialization.safe_globals([collections.Counter, Plain]):
        torch_files.read(saved({"args": argparse.Namespace()}))
        assert {collections.Counter, Plain} <= set(torch.serialization.get_safe_globals())
    with pytest.raises(Exception, match="argparse.Namespace"):
        torch.load(io.BytesIO(saved(argparse.Namespace())), weights_only=True)


def test_threads_read_at_once():
    data = saved({"args": argparse.Namespace(), "weight": torch.ones(3)})
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        for content in threads.map(torch_files.read, [data] * 200):
            assert torch.equal(content["weight"], torch.ones(3))


def test_a_changed_tensor_is_refused():
    data = saved({"weight": torch.full((8,), 3.0)})
    with pytest.raises(InputError, match="^archive/data/0 has another checksum"):
        torch_files.read(data.replace(torch.full((8,), 3.0).numpy().tobytes(), bytes(32)))


def test_files_without_checksums():
    torch.serialization.set_crc32_options(False)
    try:
        data = saved({"weight": torch.ones(3)})
    finally:
        torch.serialization.set_crc32_options(True)
    assert torch.equal(torch_files.read(data)["weight"], torch.ones(3))


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_damage_ends_in_one_line(zipped):
    data = saved({"args": argparse.Namespace(a=[1.5, "b"]), "weight": torch.ones(3), "n": np.int64(3)}, zipped=zipped)
    generator = random.Random(0)  # noqa: S311
    refused = 0
    for _ in range(400):
        changed = bytearray(data)
        for place in generator.sample(range(len(data)), generator.choice((1, 1, 8))):
            changed[place] = generator.randrange(256)
        try:
            torch_files.read(bytes(changed))
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)  # noqa: PT017
    assert refused > 50
