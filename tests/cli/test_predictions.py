import csv
import json
import os
import stat

import pytest
from PIL import Image

from acmix.cli.display import predictions as display
from acmix.data import export_digits
from acmix.errors import printable
from tests.commands import call


def test_prediction(capsys, checkpoint, tmp_path):
    images = export_digits(tmp_path / "digits", count=3)
    code, out, err = call(capsys, "predict", checkpoint, *images, "--top", "2", "--json")
    assert (code, err) == (0, "")
    content = json.loads(out)
    assert [item["path"] for item in content] == [str(path) for path in images]
    assert all(len(item["classes"]) == 2 for item in content)


@pytest.mark.parametrize("name", [b"caf\xe9.png", b"line\nbreak.jfif"])
def test_files_of_any_name_are_predicted(capsys, checkpoint, tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    with path.open("wb") as file:
        Image.new("RGB", (8, 8)).save(file, "PNG")
    code, out, err = call(capsys, "predict", checkpoint, tmp_path)
    assert (code, err, len(out.splitlines())) == (0, "", 1)
    assert out.startswith(f"{printable(path)}: ")
    code, out, _ = call(capsys, "predict", checkpoint, tmp_path, "--json")
    assert (code, json.loads(out)[0]["path"]) == (0, str(path))


def test_unreadable_images_are_named_and_the_rest_predicted(capsys, checkpoint, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    Image.new("RGB", (8, 8)).save(tmp_path / "good.png")
    code, out, err = call(capsys, "predict", checkpoint, tmp_path / "broken.png", tmp_path / "good.png")
    assert code == 2
    assert len(out.splitlines()) == 1
    assert "good.png" in out
    assert len(err.splitlines()) == 1
    assert err.startswith(f"acmix predict: error: {tmp_path / 'broken.png'}: not a readable image")


def test_what_is_missing_is_an_error_as_of_every_command(capsys, checkpoint, tmp_path):
    (tmp_path / "empty").mkdir()
    given = [tmp_path / "none.png", tmp_path / "empty"]
    code, out, err = call(capsys, "predict", checkpoint, *given, "--output", tmp_path / "drawn")
    assert (code, out) == (2, "")
    advice = "(--recursive looks into its folders)"
    assert err.splitlines() == [
        f"acmix predict: error: {given[1]}: the folder holds no image files directly in it {advice}",
        f"acmix predict: error: {given[0]}: there is no such file",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.fixture(scope="session")
def tree(tmp_path_factory):
    """Digits in a tree of folders whose files have each other's names, and what is no image."""
    root = tmp_path_factory.mktemp("tree") / "photos"
    for folder, count in (("a", 3), ("b/deep", 3), (".cache", 1)):
        export_digits(root / folder, count=count)
    Image.new("RGB", (2000, 1500), "red").save(root / "a" / "large.jpg")
    (root / "notes.txt").touch()
    return root


def listed(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_tree_into_a_table(capsys, checkpoint, tree, tmp_path):
    code, out, err = call(capsys, "predict", checkpoint, tree)
    assert (code, out) == (2, "")
    assert "photos: the folder holds no image files directly in it (--recursive looks into its folders)" in err
    arguments = ["predict", checkpoint.parent, tree, "--recursive", "--batch-size", "2", "--top", "2"]
    code, out, err = call(capsys, *arguments, "--output", tmp_path / "all.csv")
    assert (code, out, err) == (0, f"{tmp_path / 'all.csv'}: 7 predictions\n", "")
    with (tmp_path / "all.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "label", "probability", "label_2", "probability_2"]
    names = [name for name in listed(tree) if "cache" not in name and "txt" not in name]
    assert [row["path"] for row in rows] == [str(tree / name) for name in names]
    assert all(0 <= float(row["probability_2"]) <= float(row["probability"]) <= 1 for row in rows)
    call(capsys, *arguments, "--out", tmp_path / "all.JSON")
    code, out, _ = call(capsys, *arguments, "--json")
    assert (tmp_path / "all.JSON").read_text() == out
    assert [item["classes"][0]["name"] for item in json.loads(out)] == [row["label"] for row in rows]
    assert listed(tmp_path) == ["all.JSON", "all.csv"]


def test_drawings_of_a_tree(capsys, checkpoint, tree, tmp_path):
    before = {name: (tree / name).read_bytes() for name in listed(tree)}
    code, out, err = call(capsys, "predict", checkpoint, tree, "--recursive", "--out", tmp_path / "drawn")
    assert (code, err, len(out.splitlines())) == (0, "", 7)
    names = [name for name in listed(tree) if "cache" not in name and "txt" not in name]
    assert listed(tmp_path / "drawn") == [name.replace(".jpg", ".png") for name in names]
    with Image.open(tmp_path / "drawn" / "a" / "large.png") as image:
        assert image.width == 1024
    # Names are their own where folders have the same.
    code, out, _ = call(capsys, "predict", checkpoint, tree / "a", tree / "b" / "deep", "--out", tmp_path / "flat")
    assert (code, len(out.splitlines())) == (0, 7)
    assert len(listed(tmp_path / "flat")) == 7
    assert {"000-is-0.png", "000-is-0-deep.png", "large.png"} <= set(listed(tmp_path / "flat"))
    assert before == {name: (tree / name).read_bytes() for name in listed(tree)}


def test_what_is_read_is_not_written_to(capsys, checkpoint, tmp_path):
    folder = tmp_path / "images"
    files = export_digits(folder, count=2)
    (tmp_path / "link").symlink_to(folder)
    before = {file: file.read_bytes() for file in files}
    for output in (folder, tmp_path / "link"):
        code, _, err = call(capsys, "predict", checkpoint, *files, "--out", output)
        assert (code, err) == (0, "")
    assert before == {file: file.read_bytes() for file in files}
    assert "000-is-0-images.png" in listed(folder)
    code, out, err = call(capsys, "predict", checkpoint, folder, "--recursive", "--out", folder / "drawn")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert "all of which is read; give a folder outside of it" in err


def test_unreadable_images_are_counted_and_the_table_is_whole(capsys, checkpoint, tmp_path):
    export_digits(tmp_path / "images", count=2)
    for name in ("a.png", "b.png"):
        (tmp_path / "images" / name).write_bytes(b"no image")
    output = tmp_path / "all.csv"
    code, out, err = call(capsys, "predict", checkpoint, tmp_path / "images", "--output", output)
    assert (code, out) == (2, f"{output}: 2 predictions\n")
    assert err.splitlines()[-1] == "acmix predict: error: 2 of 4 images cannot be read"
    assert len(err.splitlines()) == 3
    assert len(output.read_text().splitlines()) == 3
    assert stat.S_IMODE(output.stat().st_mode) & stat.S_IRUSR


@pytest.mark.parametrize("name", ["all.csv", "all.json"])
def test_where_no_image_can_be_read_an_earlier_table_stays(capsys, checkpoint, tree, tmp_path, name):
    (tmp_path / name).write_text("before")
    (tmp_path / "bad.png").write_bytes(b"no image")
    for given in (tree, "/nowhere.png", tmp_path / "bad.png"):
        code, out, err = call(capsys, "predict", checkpoint, given, "--output", tmp_path / name)
        assert (code, out) == (2, f"{tmp_path / name}: nothing is written, as no image was read\n")
        assert err.startswith("acmix predict: error: ")
        assert len(err.splitlines()) == 1
    assert (tmp_path / name).read_text() == "before"


def test_a_table_that_is_not_finished_is_none(capsys, checkpoint, tree, tmp_path, monkeypatch):
    (tmp_path / "all.csv").write_text("before")
    cell = display._path_cell

    def interrupted(path):
        if "001" in path.name:
            raise KeyboardInterrupt
        return cell(path)

    monkeypatch.setattr(display, "_path_cell", interrupted)
    code, out, _ = call(capsys, "predict", checkpoint, tree, "--recursive", "--output", tmp_path / "all.csv")
    assert (code, out, listed(tmp_path)) == (130, "", ["all.csv"])
    assert (tmp_path / "all.csv").read_text() == "before"


@pytest.mark.parametrize("name", ["=cmd|'!A1.png", "+1.png", "-1.png", "@sum.png", b'=\xe9,\n".png'])
def test_names_are_no_formulas(capsys, checkpoint, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = os.fsdecode(name)
    Image.new("RGB", (8, 8)).save(path)
    code, _, err = call(capsys, "predict", checkpoint, ".", "--output", "all.csv")
    assert (code, err) == (0, "")
    with open("all.csv", newline="", encoding="utf-8") as file:
        ((cell, *_),) = list(csv.reader(file))[1:]
    assert cell == f"./{printable(path)}"
    call(capsys, "predict", checkpoint, ".", "--output", "all.json")
    with open("all.json", encoding="utf-8") as file:
        assert json.load(file)[0]["path"] == path


@pytest.mark.parametrize(
    ("label", "cell"), [("=1+1", "'=1+1"), ("@x", "'@x"), ("-1", "-1"), ("+2.5", "+2.5"), ("-x", "'-x"), ("cat", "cat")]
)
def test_labels_are_no_formulas(label, cell):
    assert [display._cell(label), display._cell(0.25)] == [cell, "0.25"]


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (["--output", "all.txt"], "--output must end in .csv or .json, or be a folder without a suffix, got all.txt"),
        (
            ["--output", "all.csv", "--json"],
            "--json prints what --output all.csv writes; leave one of them out",
        ),
        (["--output", "absent/all.csv"], "--output absent/all.csv cannot be written: absent is not a folder"),
        (["--top", "0"], "--top must be at least 1, got 0"),
        (["--batch-size", "0"], "--batch-size must be at least 1, got 0"),
        (["--device", "gpu"], "--device must be one of auto, cpu, cuda, cuda:1 (any number), mps, got 'gpu'"),
    ],
)
def test_refusals(capsys, checkpoint, tmp_path, monkeypatch, options, rule):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("a.png")
    code, out, err = call(capsys, "predict", checkpoint, "a.png", *options)
    assert (code, out, err.splitlines()[1:]) == (2, "", [])
    assert rule in err
    assert listed(tmp_path) == ["a.png"]
