import json
import os

import torch

from acmix import ops
from acmix.bench.environment import environment, processor


def test_the_environment_is_plain_and_whole(monkeypatch):
    monkeypatch.setenv("ACMIX_INSTRUCTIONS", "auto")
    monkeypatch.setenv("SECRET_TOKEN", "hidden")
    found = environment()
    assert json.loads(json.dumps(found)) == found
    assert found["versions"]["torch"].partition("+")[0] == torch.__version__.partition("+")[0]
    assert found["threads"] == torch.get_num_threads()
    assert found["memory"] > 2**28
    assert found["processor"] == processor()
    assert found["variables"]["ACMIX_INSTRUCTIONS"] == "auto"
    assert "SECRET_TOKEN" not in found["variables"]
    assert found["cores"] == os.cpu_count()


def test_every_backend_works_or_says_why_not():
    backends = environment()["backends"]
    assert set(backends) == {"cpu", "triton", "portable", "reference"}
    assert {name for name, reason in backends.items() if reason is None} == set(ops.backends())
    if not torch.cuda.is_available():
        assert backends["triton"] == ops.why_not("triton")
        assert environment()["gpus"] == []


def test_a_missing_package_is_left_out(monkeypatch):
    monkeypatch.setattr("acmix.bench.environment._PACKAGES", ("torch", "no-such-package"))
    assert set(environment()["versions"]) == {"acmix", "torch"}
