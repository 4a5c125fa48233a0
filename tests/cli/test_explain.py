"""`acmix demo` without its page, which needs a browser: what it trains, and when."""

import contextlib
import json
import sys
import types

import pytest

from acmix.checkpoints.stored import load_trained
from acmix.cli import explain
from acmix.tasks.classification import demonstration
from tests.commands import call


@pytest.fixture
def served(monkeypatch):
    """Networks that were served."""
    networks = []

    @contextlib.contextmanager
    def serve(classifier, port):
        networks.append((classifier.model_name, port))
        yield "http://127.0.0.1:7860/"

    def interrupt():
        raise KeyboardInterrupt

    # The page's module needs gradio, which has an environment of its own.
    page = types.ModuleType("acmix.pages.demo")
    page.serve = serve
    monkeypatch.setitem(sys.modules, "gradio", types.ModuleType("gradio"))
    monkeypatch.setitem(sys.modules, "acmix.pages.demo", page)
    monkeypatch.setattr(explain, "_wait_for_interrupt", interrupt)
    return networks


def test_the_demo_trains_what_is_missing_once(capsys, monkeypatch, tmp_path, served):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(demonstration, "CHANGES", {"image_size": 8, "batch_size": 512, "epochs": 1})
    code, out, err = call(capsys, "demo", "--port", "7001")
    assert (code, err) == (130, "\nacmix demo: stopped\n")
    told, command, *_ = out.splitlines()
    assert told == "demo/run/best.safetensors is not there yet: training it on digits"
    assert "epoch   1/1" in out
    assert (tmp_path / "demo" / "run" / "report.html").is_file()
    classifier = load_trained("demo/run/best.safetensors")
    # What was told is what trains so.
    code, config, _ = call(capsys, *command.removeprefix("$ acmix ").split(), "--print-config")
    saved = json.loads((tmp_path / "demo" / "run" / "config.json").read_text())
    assert (code, "epochs: 1" in config, saved["settings"]["epochs"]) == (0, True, 1)
    code, out, _ = call(capsys, "demo")
    assert (code, out) == (130, "demo: http://127.0.0.1:7860/ (Ctrl-C stops it)\n")
    assert served == [(classifier.model_name, 7001), (classifier.model_name, None)]
