"""What DESIGN.md promises of the tree: import direction, the light cold import, the public API and its documents."""

import ast
import functools
import graphlib
import importlib.util
import inspect
import pathlib
import re
import subprocess
import sys

import pytest
import timm

import acmix

ROOT = pathlib.Path(__file__).parents[1] / "src/acmix"
MODULES = {
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}
# Layers from the bottom up; a module imports from its own layer or below. Longest prefix wins.
LAYERS = {
    "acmix.devices": 0,
    "acmix.errors": 0,
    "acmix.registration": 3,
    "acmix.storage": 0,
    "acmix.plain": 0,
    "acmix.shell": 0,
    "acmix.progress": 0,
    "acmix.conv2d": 0,
    "acmix.records": 0,
    "acmix.ops": 1,
    "acmix.nn": 2,
    "acmix.paths": 2,
    "acmix.models": 3,
    "acmix.checkpoints": 3,
    "acmix.data": 3,
    "acmix.accounting": 3,
    "acmix.surgery": 3,
    "acmix.tasks": 4,
    "acmix.study": 4,
    "acmix.export": 4,
    "acmix.explain": 4,
    "acmix.bench": 4,
    "acmix.integrations": 4,
    "acmix.pages": 5,
    "acmix.cli": 6,
    "acmix.__main__": 6,
    "acmix": 6,
}
HIDDEN = ("acmix", "acmix.__main__", "acmix.registration")
PUBLIC = {
    "acmix": [
        "ACmix",
        "InputError",
        "__version__",
        "bench",
        "checkpoints",
        "create_model",
        "data",
        "detection_backbone",
        "explain",
        "export",
        "fuse",
        "load",
        "models",
        "ops",
        "pages",
        "replace_attention",
        "replace_convolutions",
        "segmentation_backbone",
        "study",
        "surgery",
        "tasks",
        "train",
    ],
    "acmix.ops": ["backends", "check_backend", "local_attention", "mix", "project_and_mix", "shift_conv", "why_not"],
}


def layer(module):
    return next(
        LAYERS[prefix] for prefix in sorted(LAYERS, key=len, reverse=True) if (module + ".").startswith(prefix + ".")
    )


@functools.cache
def imported(path):
    return [*names_of_imports(path)]


def names_of_imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "acmix":
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in MODULES else node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "acmix")


@pytest.mark.parametrize("module", [name for name in MODULES if name != "acmix"])
def test_imports_go_down(module):
    above = [name for name in imported(MODULES[module]) if name != "acmix" and layer(name) > layer(module)]
    assert above == []


@pytest.mark.parametrize("package", [name for name, path in MODULES.items() if path.name == "__init__.py"])
def test_what_lies_in_one_package_imports_without_circles(package):
    """Its modules and the packages within, each as a whole; imports in functions and for types count, too."""
    graph = {}
    for module in MODULES:
        for name in imported(MODULES[module]):
            if part_of(package, module) and part_of(package, name):
                graph.setdefault(part_of(package, module), set()).add(part_of(package, name))
    for part, needed in graph.items():
        needed.discard(part)
    graphlib.TopologicalSorter(graph).prepare()


def part_of(package, module):
    """The module or package that lies in the package and holds the module; None for a module outside."""
    if module == package:
        return f"{package}.__init__"
    return ".".join(module.split(".")[: package.count(".") + 2]) if module.startswith(f"{package}.") else None


def test_backends_import_neither_each_other_nor_the_reference():
    backends = {"cpu", "portable", "reference", "triton"}
    for module, path in MODULES.items():
        backend = module.removeprefix("acmix.ops.").split(".")[0]
        if module.startswith("acmix.ops.") and backend in backends:
            names = {name.removeprefix("acmix.ops.").split(".")[0] for name in imported(path)}
            assert names & ({*backends, "dispatch"} - {backend}) == set(), module


def test_every_module_has_a_place():
    assert {module.split(".")[1] for module in MODULES if "." in module} == {
        prefix.split(".")[1] for prefix in LAYERS if "." in prefix
    }


def test_cold_import_loads_nothing():
    heavy = [
        "torch",
        "numpy",
        "timm",
        "torchvision",
        "triton",
        "onnx",
        "lightning",
        "matplotlib",
        "rich",
        "safetensors",
        "PIL",
    ]
    program = (
        "import sys; before = set(sys.modules)\n"
        "import acmix\n"
        f"print(*[name for name in {heavy} if name in set(sys.modules) - before])"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)  # noqa: S603
    assert result.stdout.split() == []


def test_the_command_line_reads_what_is_typed_before_torch_is_loaded():
    program = (
        "import sys\nfrom acmix.cli.commands import run\nassert run(['train', '--epochs']) == 2\n"
        "print(*{'torch', 'scipy', 'numpy'} & sys.modules.keys())"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)  # noqa: S603
    assert result.stdout.split() == []


# Others ask whether timm is there before anybody imports it.
ASKED = "import acmix, importlib.util; importlib.util.find_spec('timm'); import timm"
# What takes long is imported once, before a fork for every way.
WAYS = """
import os, sys, torch, torchvision
assert not {"timm", "acmix"} & {*sys.modules}
for imports in sys.argv[1:]:
    if not os.fork():
        exec(imports)
        count, network = len(timm.list_models("acmix_*")), timm.create_model("acmix_resnet14_small")
        print(count, network.num_classes, flush=True)
        os._exit(0)
    assert os.wait()[1] == 0, imports
"""


def test_networks_are_in_the_registry_of_timm():
    ways = ["import acmix, timm", "import timm, acmix", "import acmix, timm.models", ASKED]
    command = [sys.executable, "-c", WAYS, *ways]
    result = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    assert result.stdout.splitlines() == len(ways) * [f"{len(timm.list_models('acmix_*'))} 10"]


@pytest.mark.parametrize("module", PUBLIC)
def test_public_api_is_what_is_listed(module):
    loaded = importlib.import_module(module)
    assert sorted(loaded.__all__) == PUBLIC[module]
    for name in PUBLIC[module]:
        value = getattr(loaded, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), name


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = acmix.nothing


def test_files_stay_small():
    long = {name: length for name, path in MODULES.items() if (length := len(path.read_text().splitlines())) > 400}
    assert long == {}


# Rooms of the compiled kernels; each includes those before it.
ROOMS = ["products", "layout", "stage_one", "stage_two", "forward", "backward"]


def test_rooms_of_the_compiled_kernels_include_those_before_them():
    sources = ROOT / "ops/cpu/csrc"
    assert {path.name for path in sources.iterdir() if path.is_dir()} == {*ROOMS, "operators"}
    for order, room in enumerate(ROOMS):
        for path in (sources / room).iterdir():
            included = re.findall(r'#include "(.+)/', path.read_text())
            # A pass does not read the other.
            assert {*included} <= {*ROOMS[: order + 1]} - ({"forward"} if room == "backward" else set()), path


def test_the_picture_of_the_design_is_what_its_source_draws():
    source = ROOT.parents[1] / "docs" / "pictures" / "house.py"
    specification = importlib.util.spec_from_file_location("house", source)
    house = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(house)
    assert house.draw() == house.PICTURE.read_text()
    drawn = {name: int(number) for number, names, _ in house.LAYERS for name in names.split(", ")}
    del drawn["acmix"]
    assert drawn == {name.removeprefix("acmix."): place for name, place in LAYERS.items() if name not in HIDDEN}
    # A row's box has room for its names, at 7.5 pixels a letter of a wide font.
    boxes = [int(width) for width in re.findall(r'<rect x="20" .*?width="(\d+)"', house.draw())]
    assert all(36 + 7.5 * len(names) <= box for (_, names, _), box in zip(house.LAYERS, boxes, strict=True))


def test_the_table_of_the_design_has_all_layers():
    rows = re.findall(r"^\| (\d) \| (.*?) \|", (ROOT.parents[1] / "DESIGN.md").read_text(), re.MULTILINE)
    written = {name: int(number) for number, names in rows for name in re.findall(r"`(\w+)`", names)}
    del written["acmix"]
    assert written == {name.removeprefix("acmix."): place for name, place in LAYERS.items() if name not in HIDDEN}


def test_the_design_is_short():
    assert len((ROOT.parents[1] / "DESIGN.md").read_text().splitlines()) < 400
