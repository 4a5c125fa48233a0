"""The workflows call what is there, and a report of a fault says where it happened."""

import re

import yaml

import acmix
from tests.docs.blocks import ROOT

FOLDER = ROOT / ".github"


def test_workflows_make_targets_of_the_makefile():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    matrix = yaml.safe_load((FOLDER / "workflows/test.yml").read_text())["jobs"]["make"]["strategy"]["matrix"]
    called = {*matrix["target"], *(more["target"] for more in matrix["include"])}
    assert called <= targets
    lines = re.findall(r"^\s*(?:make|targets=).*$", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert called == set(re.findall(r"\b(docs|test(?:-\w+)?)\b", " ".join(lines)))


def test_contributors_are_told_of_all_targets():
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    told = set(re.findall(r"make ([a-z][\w-]*)", (ROOT / "CONTRIBUTING.md").read_text()))
    assert told == {*targets} - {"clean"}


def test_no_workflow_installs_snaps():
    """Ubuntu's packages of Chromium replace those that the machines have, and cannot read a test's folders."""
    assert "packages: chromium" not in (FOLDER / "workflows/test.yml").read_text()


def test_only_what_needs_it_may_write():
    for path in (FOLDER / "workflows").glob("*.yml"):
        assert yaml.safe_load(path.read_text())["permissions"] == {"contents": "read"}


def test_reports_of_faults_ask_for_the_machine():
    form = yaml.safe_load((FOLDER / "ISSUE_TEMPLATE/fault.yml").read_text())
    asked = {field["attributes"]["label"]: field for field in form["body"]}
    assert asked["acmix info --json"]["validations"]["required"]


def test_the_citation_is_that_of_the_page():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    paper, page = citation["preferred-citation"], (ROOT / "docs/cite.md").read_text()
    assert f"{{{paper['title']}}}" in page
    assert " and ".join(f"{who['family-names']}, {who['given-names']}" for who in paper["authors"]) in page


def test_the_version_is_the_same_wherever_it_stands():
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert acmix.__version__ == version
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == version
    newest, *_ = re.findall(r"^## (\S+) ", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest == version
