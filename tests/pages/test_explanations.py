"""`acmix explain`: what is shown is what is computed, on a page that needs nothing else."""

import re

import pytest
import timm
import torch
from PIL import Image
from timm.data import resolve_data_config

from acmix import InputError
from acmix.checkpoints.classifier import Classifier
from acmix.checkpoints.stored import load_trained
from acmix.checkpoints.trained import save_trained
from acmix.cli import main
from acmix.data import read_image
from acmix.explain import layer_inputs
from acmix.explain.images import explain_image
from acmix.ops import reference
from acmix.ops.geometry import position_map
from acmix.pages import explanations, figures, theme
from tests.pages.markup import Page

CLASSES = ("ant", "<b>bee</b>", "größer")
LAYERS = [f"layer{number}.0.conv2" for number in (1, 2, 3, 4)]


def make_checkpoint(path, name="acmix_resnet14_small"):
    model = timm.create_model(name, num_classes=3).eval()
    preprocessing = {**resolve_data_config({"img_size": 20}, model=model), "crop_pct": 1.0}
    save_trained(path, Classifier(model=model, model_name=name, classes=CLASSES, preprocessing=preprocessing))
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint") / "best.safetensors")


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "a photo <i>.png"
    Image.effect_noise((30, 40), 90).save(path)
    return path


def call(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def folded_by_definition(layer, features, cell):
    """Attention of one query of the reference backend, applied to one-hot values: the cells it lies on."""
    query, key, _ = layer.qkv(features).unflatten(1, (3 * layer.heads, -1)).chunk(3, 1)
    size = features.shape[-2:]
    position = position_map(layer.position_weight, *size)
    weights = reference.attention_weights(query, key, position, layer.kernel_att, layer.stride[0], layer.dilation[0])
    cells = torch.eye(size[0] * size[1]).view(1, 1, -1, *size)
    window = reference.unfold_window(cells, layer.kernel_att, layer.stride[0], layer.dilation[0])
    row, column = cell[0] // layer.stride[0], cell[1] // layer.stride[0]
    return torch.einsum("nuv,duv->nd", weights[0, :, row, column], window[0, 0, :, row, column]).unflatten(1, size)


def test_shown_attention_is_the_definition_s(capsys, monkeypatch, checkpoint, image, tmp_path):
    drawn = []
    save = theme.saved
    monkeypatch.setattr(theme, "saved", lambda figure, kind: drawn.append(figure) or save(figure, kind))
    code, out, err = call(capsys, "explain", checkpoint, image, "--out", tmp_path / "out", "--pixel", "19,2")
    assert (code, out, err) == (0, f"page: {tmp_path / 'out' / 'index.html'}\n", "")
    classifier = load_trained(checkpoint)
    tensor = classifier.transform(read_image(image))[None]
    inputs = layer_inputs(classifier.model, tensor)
    # An input of 20 pixels: maps of 10, 10, 5 and 3 cells; layers 2, 3 and 4 stride.
    cells = {LAYERS[0]: (9, 1), LAYERS[1]: (8, 0), LAYERS[2]: (4, 0), LAYERS[3]: (2, 0)}
    grid = [axes for axes in drawn[0].axes if axes.images]
    assert len(grid) == 4 * (4 + 2)
    for number, (name, cell) in enumerate(cells.items()):
        with torch.no_grad():
            expected = folded_by_definition(classifier.model.get_submodule(name), inputs[name], cell)
        panels = grid[6 * number : 6 * number + 5]
        for head, panel in enumerate(panels[1:]):
            shown = torch.from_numpy(panel.images[1].get_array().data)
            torch.testing.assert_close(shown, expected[head], atol=1e-5, rtol=1e-4)
            assert panel.images[1].get_extent() == [0, 20, 20, 0]
        evidence = grid[6 * number + 5].images[1]
        # Signed about 0, also where nothing speaks for or against: an untrained last layer.
        assert evidence.norm.vmin == -evidence.norm.vmax < 0
        frame = panels[0].patches[0].get_bbox()
        size = 20 / inputs[name].shape[-1]
        assert (frame.y0, frame.x0, frame.width) == pytest.approx((size * cell[0], size * cell[1], size))


def test_page_holds_everything_it_shows(capsys, checkpoint, image, tmp_path):
    code, _, _ = call(capsys, "explain", checkpoint, image, "--out", tmp_path / "out", "--layer", LAYERS[1])
    assert code == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["001-a photo <i>.png", "index.html", "layers.png"]
    text = (tmp_path / "out" / "index.html").read_text()
    page = Page(tmp_path / "out" / "index.html").check()
    assert len(page.figures) == 2
    assert "://" not in text
    # Names of files and classes are text, never markup.
    assert "a photo &lt;i&gt;.png" in text
    assert "&lt;b&gt;bee&lt;/b&gt;" in text
    assert "<b>bee" not in text
    assert "pixel row 10, column 10 (framed: its cell)" in text
    assert all(layer in text for layer in LAYERS)


def test_unreadable_images_are_named_and_the_rest_explained(capsys, checkpoint, image, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    code, out, err = call(capsys, "explain", checkpoint, broken, image, tmp_path / "none.png", "--out", tmp_path / "o")
    assert code == 2
    assert out.startswith("page: ")
    assert [line.split(": ")[:3] for line in err.splitlines()] == [
        ["acmix explain", "error", str(broken)],
        ["acmix explain", "error", str(tmp_path / "none.png")],
    ]
    assert len(list((tmp_path / "o").iterdir())) == 3
    code, out, err = call(capsys, "explain", checkpoint, broken, "--out", tmp_path / "nothing")
    assert (code, out) == (2, "")
    assert not (tmp_path / "nothing").exists()
    (tmp_path / "empty").mkdir()
    code, _, err = call(capsys, "explain", checkpoint, tmp_path / "empty", "--out", tmp_path / "nothing")
    assert code == 2
    assert "the folder holds no image files" in err


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (["--layer", "layer9"], "layer must be one of layer1.0.conv2, .*, got 'layer9'"),
        (["--pixel", "20,0"], "pixel must lie in the 20 x 20 pixels .*got row 20, column 0"),
        (["--pixel", "middle"], "--pixel must be ROW,COLUMN, .*got 'middle'"),
        (["--pixel=-1,0"], "--pixel must be ROW,COLUMN"),
        (["--out", "IMAGE"], "--output must be a folder, got the file"),
    ],
)
def test_bad_usage_is_one_line(capsys, checkpoint, image, tmp_path, monkeypatch, options, rule):
    monkeypatch.chdir(tmp_path)
    options = [str(image) if option == "IMAGE" else option for option in options]
    code, out, err = call(capsys, "explain", checkpoint, image, *options)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert re.match(f"acmix explain: error: .*{rule}", err)
    assert list(tmp_path.iterdir()) == [image]


def test_what_is_missing_is_an_error_as_of_every_command(capsys, checkpoint, tmp_path):
    (tmp_path / "empty").mkdir()
    given = [tmp_path / "none.png", tmp_path / "empty"]
    code, out, err = call(capsys, "explain", checkpoint, *given, "--out", tmp_path / "out")
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        f"acmix explain: error: {given[1]}: the folder holds no image files directly in it",
        f"acmix explain: error: {given[0]}: there is no such file",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


def test_folders_are_made_with_those_that_they_lie_in(checkpoint, image, tmp_path):
    images = [(image, read_image(image))]
    page = explanations.write_explanations(
        load_trained(checkpoint), images, tmp_path / "a" / "b" / "out", layers=LAYERS[:1]
    )
    assert page == tmp_path / "a" / "b" / "out" / explanations.PAGE
    with pytest.raises(InputError, match=r"folder must be a folder, got the file .*index\.html"):
        explanations.write_explanations(load_trained(checkpoint), images, page)


def test_networks_without_the_operator_are_refused(capsys, image, tmp_path):
    plain = make_checkpoint(tmp_path / "plain.safetensors", "test_resnet.r160_in1k")
    code, _, err = call(capsys, "explain", plain, image, "--out", tmp_path / "out")
    assert code == 2
    assert "the network ResNet has no ACmix layer to look into" in err


def test_too_many_images_are_refused(monkeypatch, capsys, checkpoint, image, tmp_path):
    monkeypatch.setattr(explanations, "_MOST", 1)
    images = [(image, read_image(image))] * 2
    with pytest.raises(InputError, match="images must be at most 1, as one page holds them, got 2; give fewer"):
        explanations.write_explanations(load_trained(checkpoint), images, tmp_path / "out", layers=LAYERS[:1])
    # The command knows how many there are before it explains one.
    code, out, err = call(capsys, "explain", checkpoint, image, image, "--output", tmp_path / "none")
    assert (code, out) == (2, "")
    assert "IMAGE must be at most 1, as one page holds them, got 2" in err
    assert not (tmp_path / "none").exists()


def test_explained_scores_are_the_most_probable(checkpoint, image):
    classifier = load_trained(checkpoint)
    explanation = explain_image(classifier, read_image(image), top=2, layers=LAYERS[2:])
    with torch.no_grad():
        probabilities = classifier.model(classifier.transform(read_image(image))[None])[0].softmax(0)
    expected = sorted(zip(CLASSES, probabilities.tolist(), strict=True), key=lambda item: -item[1])[:2]
    assert explanation.scores == [(name, pytest.approx(value)) for name, value in expected]
    assert [part.layer for part in explanation.attention] == LAYERS[2:]
    assert [map_.shape for map_ in explanation.evidence] == [(3, 3), (2, 2)]
    assert explanation.picture.size == (20, 20)


def test_maps_as_pictures():
    values = torch.tensor([[0.0, 1.0], [-2.0, 2.0]])
    picture = figures.heat(values, signed=True, side=7)
    assert picture.size == (6, 6)
    zero, above, below, most = (picture.getpixel(place) for place in ((0, 0), (5, 0), (0, 5), (5, 5)))
    assert most[0] > most[2]
    assert below[2] > below[0]
    assert above[0] > above[2]
    assert min(zero) > 240
    assert set(figures.heat(torch.zeros(2, 2), signed=True, side=2).get_flattened_data()) == {zero}
    assert set(figures.heat(torch.zeros(2, 2), signed=False, side=2).get_flattened_data()) == {(0, 0, 3)}
