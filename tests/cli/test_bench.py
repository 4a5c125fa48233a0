import json

from PIL import Image

from tests.commands import call


def test_bench_shows_ratios_and_saves_what_it_measured(capsys, tmp_path):
    output, plot = tmp_path / "layers.json", tmp_path / "layers.png"
    code, out, err = call(
        capsys, "bench", "layer", "--shapes", "8x9/2", "--seconds", "0.01", "--output", output, "--plot", plot
    )
    assert code == 0
    # On a busy machine it takes long enough to tell.
    assert all(line.startswith(("measuring 1 layer: ", "loading PyTorch")) for line in err.splitlines())
    assert all(name in out for name in ("portable", "unfold", "convolution", "stride 2", "withholds"))
    saved = json.loads(output.read_text())
    assert [case["settings"]["stride"] for case in saved["comparisons"]] == [2]
    assert saved["machine"]["torch"]
    with Image.open(plot) as image:
        assert image.format == "PNG"


def test_bench_of_networks_and_of_growth(capsys, tmp_path):
    output = tmp_path / "results.json"
    models = "acmix_resnet14_small,test_resnet.r160_in1k"
    code, out, _ = call(
        capsys,
        "bench",
        "model",
        "--models",
        models,
        "--input-size",
        "32",
        "--batch-size",
        "2",
        "--seconds",
        "0.01",
        "--output",
        output,
    )
    assert code == 0
    assert "images/s" in out
    assert "backward" in out
    (comparison,) = json.loads(output.read_text())["comparisons"]
    assert comparison["baseline"].startswith("test_resnet.r160_in1k, ")
    assert len(comparison["candidates"]) == 4
    code, out, _ = call(
        capsys,
        "bench",
        "scaling",
        "images",
        "--channels",
        "4",
        "--largest",
        "2",
        "--seconds",
        "0.01",
        "--output",
        output,
    )
    assert code == 0
    assert "exponent" in out
    (growth,) = json.loads(output.read_text())["scalings"]
    assert [point["count"] for point in growth["points"]] == [1, 2]


def test_bench_of_fused_networks_shows_forward_alone(capsys, tmp_path):
    output, plot = tmp_path / "results.json", tmp_path / "results.svg"
    given = ["--models", "acmix_resnet14_small", "--image-size", "16", "--batch-size", "2", "--seconds", "0.01"]
    code, out, _ = call(capsys, "bench", "model", *given, "--fused", "--autocast", "--output", output, "--plot", plot)
    assert code == 0
    assert "backward" not in out
    (comparison,) = json.loads(output.read_text())["comparisons"]
    assert comparison["settings"]["fused"]
    assert comparison["settings"]["autocast"]
    assert comparison["candidates"][comparison["baseline"]]["training"] is None
    assert "backward" not in plot.read_text()
    code, _, err = call(capsys, "bench", "model", *given, "--autocast", "--dtype", "bfloat16")
    assert code == 2
    assert err.endswith("--autocast casts weights of float32 by itself, got --dtype bfloat16\n")
