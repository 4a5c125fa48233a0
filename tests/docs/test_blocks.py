"""Every block of code in every document runs, is parsed, or says that it is output."""

import re
import shlex
import shutil
import tomllib

import pytest

from acmix.cli import main
from acmix.cli.commands import COMMANDS, GROUPS
from acmix.cli.parser import build_parser
from acmix.data import export_digits
from tests.docs.blocks import DATA, DOCUMENTS, OUTPUT, ROOT, blocks_of, is_left_out, lines_of

# Pages whose programs train or export for long: `make test-docs`.
SLOW = {"docs/export.md", "docs/resume.md", "docs/train.md", "docs/warm-start.md"}
BLOCKS = [block for path in DOCUMENTS for block in blocks_of(path)]
# A page in another language has the blocks of its original, and a test compares them.
ORIGINALS = [block for block in BLOCKS if not re.search(r"/zh/|zh-CN", block.document)]
# Of the README's programs tests/test_documents.py also holds what they leave.
PAGES = sorted(
    {block.document for block in ORIGINALS if block.language == "python" and not is_left_out(block)} - {"README.md"}
)
SHELL = [block for block in ORIGINALS if block.language == "sh"]


@pytest.fixture(scope="session")
def materials(tmp_path_factory):
    """What pages find in the folder they run in, of docs/train.md: pictures, a run."""
    folder = tmp_path_factory.mktemp("materials")
    export_digits(folder / "photos", count=8)
    options = "--epochs 1 --image-size 16 --learning-rate 0.003 --device cpu"
    assert main(shlex.split(f"train digits --output {folder}/runs/digits {options}")) == 0
    return folder


@pytest.fixture
def here(materials, tmp_path, monkeypatch):
    shutil.copytree(materials, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_block_says_what_it_is():
    known = {"python", "sh", *OUTPUT, *DATA}
    assert [(block.document, block.language) for block in BLOCKS if block.language not in known] == []
    marks = {block.mark for block in BLOCKS if block.mark and not is_left_out(block)}
    assert marks <= {"run"}
    assert not [block for block in BLOCKS if block.mark == "run" and block.language != "sh"]


def test_only_pages_of_other_frameworks_and_long_trainings_leave_programs_out():
    left = {block.document for block in ORIGINALS if is_left_out(block)}
    assert left <= {"docs/yolo.md", "docs/ultralytics.md", "docs/detection.md", "docs/segmentation.md"}


def fast_and_slow(names):
    return [pytest.param(name, marks=[pytest.mark.documents] * (name in SLOW)) for name in names]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("document", fast_and_slow(PAGES))
def test_the_programs_of_a_page_run_one_after_another(document):
    names = {"__name__": document}
    for block in ORIGINALS:
        if block.document == document and block.language == "python" and not is_left_out(block):
            exec(compile(block.code, document, "exec"), names)  # noqa: S102


@pytest.mark.parametrize("block", SHELL, ids=lambda block: block.document)
def test_commands_are_such_as_the_parser_takes(block):
    for line in lines_of(block.code):
        check_command(shlex.split(line))


def check_command(words):
    program = words[0]
    if program in {"torchrun", "srun"}:
        check_command(words[words.index("acmix") :])
    elif program == "make":
        rules = (ROOT / "Makefile").read_text()
        known = re.findall(r"^([\w-]+):|^(\w+) \?=", rules, re.MULTILINE)
        assert {word.partition("=")[0] for word in words[1:]} <= {name for names in known for name in names if name}
    elif words[:2] == ["pip", "install"]:
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        named = [name for word in words[2:] for group in re.findall(r"\[(.*)\]", word) for name in group.split(",")]
        assert set(named) <= set(extras)
    else:
        assert program == "acmix", f"{program}: what does it do in a document?"
        build_parser(COMMANDS, GROUPS).parse_args(words[1:])


@pytest.mark.documents
@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("block", [block for block in SHELL if block.mark == "run"], ids=lambda block: block.document)
def test_commands_run(block):
    if "--output runs/digits" in block.code:
        shutil.rmtree("runs/digits")
    for line in lines_of(block.code):
        assert main(shlex.split(line)[1:]) == 0, line
