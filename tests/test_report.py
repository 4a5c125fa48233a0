"""The report of a run: complete, self-contained, and honest about what it lacks."""

import html.parser
import json
import shutil

import pytest

from acmix import InputError
from acmix.report import write_report
from acmix.tasks.classification import fit
from acmix.tasks.settings import Settings

SETTINGS = Settings(
    model="acmix_resnet14_small", epochs=1, batch_size=64, image_size=8, precision="float32", val_fraction=0.9
)


class Page(html.parser.HTMLParser):
    """Addresses and headings of a page; unbalanced tags show as a non-empty stack."""

    def __init__(self, text):
        super().__init__()
        self.addresses, self.headings, self.stack = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.addresses += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("img", "meta", "br"):
            self.stack.append(tag)

    def handle_endtag(self, tag):
        while self.stack and self.stack.pop() != tag:
            pass

    def handle_data(self, data):
        if self.stack and self.stack[-1] == "h2":
            self.headings.append(data)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return fit("digits", SETTINGS, tmp_path_factory.mktemp("runs") / "run", workers=0).output


def test_page_holds_everything_it_shows(finished):
    path = write_report(finished)
    text = path.read_text()
    page = Page(text)
    assert path == finished / "report.html"
    assert page.headings == [
        "Curves",
        "Confusion matrix",
        "Predictions on held-out images",
        "What a pixel attends to",
        "Learned rates",
        "Configuration",
    ]
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert text.count("data:image/png") == 24
    assert text.count("data:image/svg+xml") == 7
    best = json.loads((finished / "summary.json").read_text())["best_top1"]
    assert f"{100 * best:.2f} %" in text
    assert write_report(finished, finished / "again.html").read_text() == text


def test_unfinished_run_says_so(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "summary.json").unlink()
    text = write_report(run).read_text()
    assert "This run has not finished" in text
    assert "Confusion matrix" not in text


def test_folders_without_a_run_are_refused(finished, tmp_path):
    with pytest.raises(
        InputError, match=r"is not a run with a finished epoch: config.json, metrics.csv, best.safetensors"
    ):
        write_report(tmp_path)
    with pytest.raises(InputError, match="nowhere is not a folder"):
        write_report(finished, tmp_path / "nowhere" / "report.html")


def test_damaged_metrics_are_named(finished, tmp_path):
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "metrics.csv").write_text("epoch,val_top1\n1,high\n")
    with pytest.raises(InputError, match=r"metrics.csv is damaged"):
        write_report(run)
