"""csrc/operators/libtorch.h beside the headers of the torch that is installed: it declares what they declare."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

COMPILER = os.environ.get("CXX", "g++")
pytestmark = pytest.mark.skipif(not shutil.which(COMPILER), reason="no C++ compiler to ask")

HEADER = Path(__file__).parents[2] / "src/acmix/ops/cpu/csrc/operators/libtorch.h"
THEIRS = Path(torch.__file__).parent / "include"


def compile_beside_theirs(text, folder):
    """Two declarations of one C function with other arguments or results are an error."""
    (folder / "libtorch.h").write_text(text)
    (folder / "both.cpp").write_text('#include <torch/csrc/stable/c/shim.h>\n#include "libtorch.h"\n')
    command = [COMPILER, "-std=c++20", "-fsyntax-only", "-isystem", str(THEIRS), str(folder / "both.cpp")]
    return subprocess.run(command, capture_output=True, text=True)  # noqa: S603


def test_declarations_are_those_of_torch(tmp_path):
    assert compile_beside_theirs(HEADER.read_text(), tmp_path).stderr == ""


@pytest.mark.parametrize(
    ("ours", "wrong"),
    [
        (
            "aoti_torch_get_dim(AtenTensorOpaque* tensor, int64_t*",
            "aoti_torch_get_dim(AtenTensorOpaque* tensor, int32_t*",
        ),
        ("int32_t torch_get_num_threads", "int64_t torch_get_num_threads"),
        ("StableIValue = uint64_t", "StableIValue = uint32_t"),
    ],
)
def test_a_wrong_declaration_does_not_compile(ours, wrong, tmp_path):
    text = HEADER.read_text()
    assert ours in text
    assert "conflicting declaration" in compile_beside_theirs(text.replace(ours, wrong), tmp_path).stderr
