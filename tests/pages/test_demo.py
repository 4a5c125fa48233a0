"""`acmix demo` in a real browser: uploads, clicks, layers, and what it refuses."""

import base64
import copy
import io
import json
import shutil
import socket
import urllib.error
import urllib.request
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import resolve_data_config

from acmix import InputError, explain, ops
from acmix.checkpoints.classifier import Classifier
from acmix.checkpoints.trained import save_trained
from acmix.cli import main
from acmix.data import DataRecord, Digits, read_image
from acmix.ops import reference
from acmix.ops.geometry import position_map
from acmix.pages import detection, figures
from acmix.tasks.classification import demonstration
from acmix.tasks.kinds import KINDS
from tests.checkpoints.test_cards import a_detector

# Gradio's and its servers' own warnings are not ours.
pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]
LAYERS = [f"layer{number}.0.conv2" for number in (1, 2, 3, 4)]
SIZE = 24
# Seconds until the page or the server counts as stuck: enough for a machine many times slower than a desk's.
PATIENCE = 300


@pytest.fixture(scope="module")
def classifier():
    pytest.importorskip("gradio", reason="gradio is not installed here; make test-browser has it")
    torch.manual_seed(0)
    model = timm.create_model("acmix_resnet14_small", num_classes=3).eval()
    preprocessing = {**resolve_data_config({"img_size": SIZE}, model=model), "crop_pct": 1.0}
    classes = ("ant", "<i>bee</i>", "größer")
    return Classifier(model=model, model_name="acmix_resnet14_small", classes=classes, preprocessing=preprocessing)


@pytest.fixture(scope="module")
def address(classifier):
    from acmix.pages.demo import serve

    # A network of its own: what tests compute beside it must not run through its hooks.
    with serve(replace(classifier, model=copy.deepcopy(classifier.model))) as url:
        yield url


class Page:
    """What a person does on the page, and what they see."""

    def __init__(self, driver, address):
        self.driver = driver
        driver.get(address)
        self.wait("#upload input[type=file]")

    def find(self, selector):
        return self.driver.find_elements("css selector", selector)

    def until(self, condition, missing):
        """Ask again until the condition gives something; the page may exchange an element while it is looked at."""
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.support.wait import WebDriverWait

        patient = WebDriverWait(self.driver, PATIENCE, 0.05, [StaleElementReferenceException])
        return patient.until(lambda _: condition(), missing)

    def wait(self, selector, text=""):
        """The first such element, once it holds the text."""

        def seen():
            found = self.find(selector)[:1]
            return next((item for item in found if text in (item.get_attribute("textContent") or "")), None)

        return self.until(seen, f"no {selector} with {text!r}")

    def wait_without(self, selector):
        self.until(lambda: not self.find(selector), f"{selector} is still there")

    def upload(self, path):
        """Give a file to the page, in place of the one before."""
        for remove in self.find("#upload button[aria-label=Clear], #upload button[aria-label='Remove']"):
            remove.click()
        self.wait("#upload input[type=file]").send_keys(str(path))

    def click_pixel(self, row, column):
        from selenium.webdriver import ActionChains

        picture = self.wait("#picture img")
        self.until(lambda: picture.get_property("naturalWidth"), "the picture is not there")
        scale = picture.size["width"] / SIZE
        across, down = (
            (column + 0.5) * scale - picture.size["width"] / 2,
            (row + 0.5) * scale - picture.size["height"] / 2,
        )
        ActionChains(self.driver).move_to_element_with_offset(picture, int(across), int(down)).click().perform()
        self.wait("#heads", f"Pixel row {row}, column {column} ")

    def choose(self, layer):
        next(label for label in self.find("#layers label") if label.text == layer).click()
        self.wait("#heads", f"{layer} has a map")

    def maps(self):
        """The picture of every head."""
        addresses = [image.get_attribute("src") for image in self.find("#heads figure img")]
        return [Image.open(io.BytesIO(base64.b64decode(text.partition(",")[2]))) for text in addresses]


@pytest.fixture
def page(driver, address):
    driver.set_window_size(1400, 1200)
    driver.get_log("performance")
    return Page(driver, address)


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    Image.effect_noise((60, 40), 90).save(path)
    return path


def test_upload_click_layers_and_backends(page, photo, classifier):
    page.upload(photo)
    page.wait("#heads figure")
    page.wait("#scores .bars > span")
    # This network was trained on nothing that is at hand.
    assert not page.find("#examples img")
    tensor = classifier.transform(read_image(photo))[None]
    with torch.no_grad():
        probabilities = classifier.model(tensor)[0].softmax(0)
    best = int(probabilities.argmax())
    assert [span.text for span in page.find("#scores .bars > span")][:2] == [
        classifier.classes[best],
        f"{100 * probabilities[best]:.1f} %",
    ]
    page.choose(LAYERS[2])
    page.click_pixel(3, 20)
    # The picture is the definition's attention, drawn: 6 x 6 cells of 4 pixels, a stride of 2.
    layer, features = (
        classifier.model.get_submodule(LAYERS[2]),
        explain.layer_inputs(classifier.model, tensor)[LAYERS[2]],
    )
    assert features.shape[-2:] == (6, 6)
    with torch.no_grad():
        query, key, _ = layer.qkv(features).unflatten(1, (3 * layer.heads, -1)).chunk(3, 1)
        weights = reference.attention_weights(query, key, position_map(layer.position_weight, 6, 6), 7, 2, 1)[
            0, :, 0, 2
        ]
    window = reference.unfold_window(torch.eye(36).view(1, 36, 6, 6), 7, 2, 1)[0, :, 0, 2]
    expected = torch.einsum("nuv,cuv->nc", weights, window).unflatten(1, (6, 6))
    shown = page.maps()
    assert len(shown) == 4 + 1
    for map_, values in zip(shown, expected, strict=False):
        drawn = figures.heat(explain.spread(values, SIZE, SIZE), signed=False, side=map_.width)
        difference = np.abs(np.asarray(map_.convert("RGB"), int) - np.asarray(drawn, int))
        assert difference.max() <= 4
    assert "belongs to the query of cell row 0, column 4 " in page.find("#heads")[0].text
    page.wait("#compare").click()
    page.wait("#answers table")
    assert [row.text.split()[0] for row in page.find("#answers tr")[1:]] == list(ops.backends())
    requests = [json.loads(entry["message"])["message"] for entry in page.driver.get_log("performance")]
    urls = [entry["params"]["request"]["url"] for entry in requests if entry["method"] == "Network.requestWillBeSent"]
    hosts = {url.split("/")[2] for url in urls if url.startswith(("http", "ws"))}
    assert {host.split(":")[0] for host in hosts} == {"127.0.0.1"}


def test_the_keyboard_names_a_pixel(page, photo):
    from selenium.webdriver import Keys

    page.upload(photo)
    page.wait("#heads figure")
    half = SIZE // 2
    page.wait("#row input").send_keys(Keys.ARROW_UP)
    page.wait("#heads", f"Pixel row {half + 1}, column {half} ")
    # Beyond the picture is its edge.
    page.wait("#column input").send_keys("99")
    page.wait("#heads", f"Pixel row {half + 1}, column {SIZE - 1} ")
    page.click_pixel(3, 20)
    page.until(lambda: page.find("#row input")[0].get_property("value") == "3", "the row is not shown")


def test_what_is_no_image_is_refused_and_the_page_goes_on(page, photo, tmp_path):
    page.upload(photo)
    page.wait("#heads figure")
    (tmp_path / "notes.png").write_text("no image")
    page.upload(tmp_path / "notes.png")
    refusal = page.wait("#status [role=alert]")
    assert refusal.text == "notes.png: not a readable image (of no format that Pillow knows)"
    page.wait_without("#heads figure")
    page.wait_without("#scores .bars")
    page.upload(photo)
    page.wait("#heads figure")
    page.wait_without("#status [role=alert]")


def images_of_every_mode(folder):
    noise = Image.effect_noise((50, 31), 90)
    exif = Image.Exif()
    exif[0x0112] = 6
    noise.convert("P").save(folder / "palette.png")
    noise.convert("RGBA").save(folder / "alpha.png")
    Image.fromarray(np.asarray(noise).astype(np.uint16) << 8).save(folder / "sixteen.png")
    noise.convert("CMYK").save(folder / "cmyk.jpg")
    noise.save(folder / "rotated.jpg", exif=exif)
    noise.convert("1").save(folder / "bits.tif")
    noise.resize((1, 1)).save(folder / "dot.gif")
    Image.effect_noise((2000, 1500), 90).save(folder / "large.webp")
    return sorted(folder.iterdir())


def test_images_of_every_mode_and_size(page, tmp_path, classifier):
    for path in images_of_every_mode(tmp_path):
        page.upload(path)
        page.wait("#upload", path.stem)
        tensor = classifier.transform(read_image(path))
        with torch.no_grad():
            best = f"{100 * classifier.model(tensor[None])[0].softmax(0).max():.1f} %"
        page.wait("#scores", best)
        page.until(partial(shows, page, classifier.as_seen(tensor)), path.name)


def shows(page, expected):
    """Whether the picture is the expected one, but for the frame around the cell, a part of a pixel wide."""
    content = fetch(page.wait("#picture img").get_attribute("src"))[1]
    shown = Image.open(io.BytesIO(content)).convert("RGB").resize((SIZE, SIZE), Image.Resampling.NEAREST)
    return (np.asarray(shown) == np.asarray(expected)).all(-1).mean() > 0.9


@pytest.mark.parametrize("width", [1400, 420])
def test_nothing_hangs_over_the_window(page, photo, width):
    page.driver.set_window_size(width, 1200)
    page.upload(photo)
    page.wait("#heads figure")
    page.wait("#compare").click()
    page.wait("#answers table")
    inner, outer = page.driver.execute_script("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert inner <= outer


def fetch(url, body=None, kind="application/json"):
    request = urllib.request.Request(url, body, {"Content-Type": kind})  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:  # noqa: S310
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_only_this_machine_is_served(address):
    port = int(address.rstrip("/").rpartition(":")[2])
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    assert [line[1] for line in listening if line[1].endswith(f":{port:04X}") and line[3] == "0A"] == [
        f"0100007F:{port:04X}"
    ]


def test_files_beside_the_uploads_are_not_read(address, photo, monkeypatch):
    async def fetched(url, cache_dir):  # noqa: ARG001
        return str(shutil.copy(photo, cache_dir))

    # What Gradio would fetch an address with.
    monkeypatch.setattr("gradio.processing_utils.async_ssrf_protected_download", fetched)
    content = b"--x\r\nContent-Disposition: form-data; name=files; filename=a.png\r\n\r\n" + photo.read_bytes()
    code, reply = fetch(f"{address}gradio_api/upload", content + b"\r\n--x--\r\n", "multipart/form-data; boundary=x")
    assert code == 200
    (uploaded,) = json.loads(reply)
    assert open_by_hand(address, uploaded)
    assert not open_by_hand(address, str(photo))
    assert not open_by_hand(address, "http://example.org/a.png")
    assert fetch(f"{address}gradio_api/file={photo}")[0] == 403


def open_by_hand(address, path):
    """Whether the page opens the file that a client names, without the client's own checks."""
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    body = {"data": [file, LAYERS[0]], "fn_index": upload_event(address), "session_hash": "by-hand"}
    assert fetch(f"{address}gradio_api/queue/join", json.dumps(body).encode())[0] == 200
    _, events = fetch(f"{address}gradio_api/queue/data?session_hash=by-hand")
    (done,) = (json.loads(line[6:]) for line in events.decode().splitlines() if "process_completed" in line)
    return done["success"]


def upload_event(address):
    """The number of the event that an upload starts."""
    config = json.loads(fetch(f"{address}config")[1])
    upload = next(part["id"] for part in config["components"] if part["props"].get("elem_id") == "upload")
    return next(event["id"] for event in config["dependencies"] if [upload, "change"] in event["targets"])


def test_uploads_are_bounded(address):
    content = (
        b"--x\r\nContent-Disposition: form-data; name=files; filename=a.png\r\n\r\n"
        + bytes(33 << 20)
        + b"\r\n--x--\r\n"
    )
    code, _ = fetch(f"{address}gradio_api/upload", content, "multipart/form-data; boundary=x")
    assert code == 413


def test_a_taken_port_and_a_network_without_layers_are_refused(classifier):
    from acmix.pages.demo import serve

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with (
            pytest.raises(InputError, match=f"^--port {port} cannot be used: it is taken, or [^.]*$"),
            serve(classifier, port),
        ):
            pass
    plain = timm.create_model("test_resnet.r160_in1k", num_classes=3).eval()
    other = Classifier(
        model=plain, model_name="plain", classes=("a", "b", "c"), preprocessing=resolve_data_config({}, model=plain)
    )
    with pytest.raises(InputError, match="no ACmix layer"), serve(other):
        pass


def test_the_command_trains_what_is_missing(capsys, monkeypatch, tmp_path, classifier):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("acmix.cli.explain._wait_for_interrupt", interrupt)
    monkeypatch.setattr(demonstration, "CHANGES", {"image_size": 8, "batch_size": 512, "epochs": 1})
    save_trained(tmp_path / "given.safetensors", classifier)
    assert main(["demo", "given.safetensors"]) == 130
    given = capsys.readouterr()
    assert given.out.startswith("demo: http://127.0.0.1:")
    assert given.err == "\nacmix demo: stopped\n"
    assert main(["demo"]) == 130
    first = capsys.readouterr().out
    assert first.startswith("demo/run/best.safetensors is not there yet: training it on digits\n$ acmix train digits")
    assert "epoch   1/1" in first
    assert main(["demo"]) == 130
    assert capsys.readouterr().out.startswith("demo: http://127.0.0.1:")


def test_examples_of_a_network_trained_on_bundled_digits(driver, classifier):
    from acmix.pages.demo import serve

    model, digits = timm.create_model("acmix_resnet14_small", num_classes=10).eval(), Digits()
    fingerprint = digits.fingerprint()
    record = DataRecord(location="digits", was_split=True, val_fraction=0.2, seed=3, fingerprint=fingerprint)
    trained = replace(classifier, model=model, classes=digits.classes, training={"data": asdict(record)})
    with serve(trained) as address:
        page = Page(driver, address)
        page.until(lambda: len(page.find("#examples button img")) == 10, "no ten examples")
        page.find("#examples button img")[7].click()
        page.wait("#heads figure")
        held_out = digits.split(0.2, 3)[1]
        image = held_out[held_out.labels.index(7)][0]
        page.wait("#upload", held_out.name(held_out.labels.index(7)).replace("/", "-").partition(".")[0])
        with torch.no_grad():
            best = f"{100 * model(trained.transform(image)[None])[0].softmax(0).max():.1f} %"
        page.wait("#scores", best)


def test_a_detector_shows_what_it_found_and_where_its_backbone_looked(driver, photo):
    from acmix.pages.demo import serve

    detector = a_detector("retinanet")
    with serve(detector) as address:
        page = Page(driver, address)
        page.upload(photo)
        page.wait("#heads figure")
        page.wait("#scores", "Surest object of each class")
        content = fetch(page.wait("#found img").get_attribute("src"))[1]
        (prediction,) = KINDS["detection"].predict(detector, [photo], [])
        drawn = Image.open(io.BytesIO(detection.draw(read_image(photo), prediction)[".png"]))
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(content)).convert("RGB")), np.asarray(drawn))
        page.wait("#compare").click()
        page.wait("#answers table")
