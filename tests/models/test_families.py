"""Parameters and multiply-adds of every network: those published or defined, and those that docs/families.md tells."""

import re

import pytest

from acmix.accounting import account
from acmix.models import create_model
from tests.docs.blocks import ROOT

ROWS = re.findall(r"^\| (`acmix_.*?) \| (.*?) M \| (.*?) G \|", (ROOT / "docs/families.md").read_text(), re.M)
FIGURES = {
    name.strip("`"): figures
    for names, *columns in ROWS
    for name, *figures in zip(names.split(", "), *(column.split(", ") for column in columns), strict=True)
}
# arXiv 2111.14556, table 2: multiply-adds with ACmix, then parameters and multiply-adds of the convolutional network.
PUBLISHED = {
    "acmix_resnet26": (2.3e9, 13.7e6, 2.4e9),
    "acmix_resnet38": (2.9e9, 19.6e6, 3.2e9),
    "acmix_resnet50": (3.6e9, 25.6e6, 4.1e9),
}
# Millions of parameters and billions of multiply-adds of our definitions.
DEFINED = {
    "acmix_pvt_tiny": (13.40, 2.01),
    "acmix_pvt_small": (24.82, 3.96),
    "acmix_san10": (11.99, 1.89),
    "acmix_san15": (16.41, 2.63),
    "acmix_san19": (20.83, 3.32),
}


def test_every_family_has_a_row():
    assert len(ROWS) == 5
    assert FIGURES.keys() >= PUBLISHED.keys() | DEFINED.keys()


@pytest.mark.parametrize("name", FIGURES)
def test_figures(name):
    network = create_model(name, device="meta")
    result = account(network, network.default_cfg["input_size"])
    total = result.network.total
    for figure, exact in zip(FIGURES[name], (total.parameters / 1e6, total.multiply_adds / 1e9), strict=True):
        assert abs(exact - float(figure)) <= 0.5 * 10 ** -len(figure.partition(".")[2])
    if name in DEFINED:
        parameters, multiply_adds = DEFINED[name]
        assert total.parameters / 1e6 == pytest.approx(parameters, rel=0.002)
        assert total.multiply_adds / 1e9 == pytest.approx(multiply_adds, rel=0.03)
    if name in PUBLISHED:
        operations, twin_parameters, twin_operations = PUBLISHED[name]
        assert total.parameters == sum(parameter.numel() for parameter in network.parameters())
        # The published count runs fc and dep_conv in two steps, ours composes them.
        assert 0.95 * operations < total.multiply_adds < operations
        assert result.twin.total.parameters == pytest.approx(twin_parameters, abs=0.05e6)
        assert result.twin.total.multiply_adds == pytest.approx(twin_operations, abs=0.06e9)
        assert result.network.other == result.twin.other
