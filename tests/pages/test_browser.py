"""Pages and pictures in a real browser, at every width and in both schemes: whole, legible, usable by keyboard."""

import itertools
from functools import reduce
from pathlib import Path

import pytest
import torch
from PIL import Image

from acmix.checkpoints.stored import load_trained
from acmix.pages.comparison import write_comparison
from acmix.pages.explanations import PAGE, write_explanations
from acmix.pages.report import write_report
from acmix.tasks.classification.fitting import ROOM
from acmix.tasks.classification.settings import Settings
from acmix.tasks.comparison import compare_runs
from acmix.tasks.detection import fitting as detection
from acmix.tasks.record import read_run
from tests.browser import forget
from tests.drawn_shapes import CLASSES as SHAPES
from tests.drawn_shapes import draw, write_coco
from tests.pages.test_detection import SETTINGS as DETECTION

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]
ROOT = Path(__file__).parents[2]
WIDTHS, SCHEMES = (420, 768, 1200, 1600), ("light", "dark")
CLASSES = ("ant", "gas pump, gasoline pump, petrol pump", "größer<b>")
PICTURES = [*(ROOT / "docs/pictures").glob("*.svg"), *(ROOT / "benchmarks/results").glob("*.svg")]
# What is shown beyond the window, or is words that lie outside of their drawing.
CUT = """
const wide = document.documentElement.clientWidth, found = [];
for (const each of document.querySelectorAll("body *")) {
  const place = each.getBoundingClientRect(), scroller = each.parentElement.closest(".scroll");
  if (!scroller && place.width && (place.right > wide + 1 || place.left < -1)) found.push(each.outerHTML.slice(0, 120));
}
for (const each of document.querySelectorAll("svg text")) {
  const place = each.getBoundingClientRect(), frame = each.closest("svg").getBoundingClientRect();
  if (place.left < frame.left - 1 || place.right > frame.right + 1 || place.top < frame.top - 1
      || place.bottom > frame.bottom + 1) found.push(each.textContent);
}
return found;
"""
# Words with less contrast than 4.5 to what lies behind them; words on bars and cells of figures are measured elsewhere.
FAINT = """
const numbers = text => text.match(/[\\d.]+/g).map(Number), found = [];
const light = ([red, green, blue]) => [red, green, blue].map(each => each / 255)
  .map(each => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4)
  .reduce((sum, each, place) => sum + each * [0.2126, 0.7152, 0.0722][place], 0);
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const around = texts.currentNode.parentElement, style = getComputedStyle(around);
  const drawn = around.closest("svg") !== null;
  if (!texts.currentNode.data.trim() || !around.checkVisibility() || around.closest(".fill-paper")) continue;
  let ground = around;
  const opaque = each => (numbers(getComputedStyle(each).backgroundColor)[3] ?? 1) > 0;
  while (!opaque(ground)) ground = ground.parentElement;
  const colours = [drawn ? style.fill : style.color, getComputedStyle(ground).backgroundColor];
  const both = colours.map(each => light(numbers(each)));
  if ((Math.max(...both) + 0.05) / (Math.min(...both) + 0.05) < 4.5) found.push(texts.currentNode.data);
}
return found;
"""


def show(driver, path, width, scheme):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    driver.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    )
    driver.get(path.as_uri())


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A report, a comparison and explanations of a small run of images with long names of classes."""
    torch.manual_seed(0)
    folder, runs = tmp_path_factory.mktemp("pages"), []
    for number, name in itertools.product(range(20), CLASSES):
        path = folder / "data" / name / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((24, 24), 90).save(path)
    for name in ("short", "a-name-that-is-too-long-for-a-legend-under-a-figure"):
        settings = Settings(model="acmix_resnet14_small", epochs=2, batch_size=24, image_size=24, val_fraction=0.4)
        runs.append(read_run(ROOM.fit(str(folder / "data"), settings, folder / name, workers=0).output))
    classifier = load_trained(runs[0].folder / "best.safetensors")
    image = Image.effect_noise((24, 24), 90).convert("RGB")
    write_explanations(classifier, [(Path("a/long/path/to/an image of something.png"), image)], folder / "explained")
    for file in (write_coco(folder / "shapes", draw(12, side=64)) / "annotations").iterdir():
        names = zip(SHAPES, CLASSES, strict=True)
        file.write_text(reduce(lambda text, pair: text.replace(*pair), names, file.read_text()))
    detection.ROOM.fit(str(folder / "shapes"), DETECTION, folder / "detection", workers=0)
    return {
        "detection": write_report(folder / "detection"),
        "report": write_report(runs[0].folder),
        "compare": write_comparison(runs, compare_runs(runs), folder / "compare.html"),
        "explain": folder / "explained" / PAGE,
    }


@pytest.mark.parametrize("name", ["report", "detection", "compare", "explain"])
def test_pages(driver, pages, name):
    forget(driver)
    for scheme, width in itertools.product(SCHEMES, WIDTHS):
        show(driver, pages[name], width, scheme)
        driver.execute_script("document.querySelectorAll('details').forEach(each => each.open = true)")
        inner, outer = driver.execute_script(
            "const root = document.documentElement; return [root.scrollWidth, root.clientWidth]"
        )
        assert inner <= outer, (scheme, width)
        assert driver.execute_script(CUT) == [], (scheme, width)
        assert driver.execute_script(FAINT) == [], (scheme, width)
    # Of the policy against scripts and what is fetched, for instance.
    assert driver.get_log("browser") == []


@pytest.mark.parametrize("name", ["report", "detection", "compare", "explain"])
def test_the_keyboard_reaches_what_scrolls(driver, pages, name):
    from selenium.webdriver import ActionChains, Keys

    show(driver, pages[name], 420, "light")
    wanted = driver.find_elements("css selector", "a, summary, .scroll")
    wanted = [each for each in wanted if each.is_displayed()]
    assert any("scroll" in each.get_attribute("class") for each in wanted)
    reached = []
    for _ in wanted:
        ActionChains(driver).send_keys(Keys.TAB).perform()
        each = driver.switch_to.active_element
        assert each.value_of_css_property("outline-style") == "solid"
        reached.append(each)
    assert reached == wanted
    scroller = next(
        each
        for each in wanted
        if driver.execute_script(
            "return arguments[0].matches('.scroll') && arguments[0].scrollWidth > arguments[0].clientWidth", each
        )
    )
    driver.execute_script("arguments[0].focus()", scroller)
    ActionChains(driver).send_keys(Keys.ARROW_RIGHT).pause(0.5).perform()
    assert driver.execute_script("return arguments[0].scrollLeft", scroller) > 0


def test_print_is_light_and_whole(driver, pages):
    show(driver, pages["report"], 720, "dark")
    dark = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", **dark})
    colours = driver.execute_script(
        "const style = getComputedStyle(document.body); return [style.color, style.backgroundColor]"
    )
    assert colours == ["rgb(28, 25, 23)", "rgb(255, 255, 255)"]
    # Nothing scrolls on paper.
    inner, outer = driver.execute_script(
        "const root = document.documentElement; return [root.scrollWidth, root.clientWidth]"
    )
    assert inner <= outer
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


@pytest.mark.parametrize("path", PICTURES, ids=lambda path: path.stem)
def test_words_of_pictures_lie_within_them(driver, path):
    for scheme in SCHEMES:
        show(driver, path, 1200, scheme)
        script = """
const frame = document.documentElement.getBoundingClientRect();
return [...document.querySelectorAll("text")].map(each => [each.textContent.trim(), each.getBoundingClientRect()])
  .filter(([, place]) => place.left < frame.left || place.right > frame.right || place.bottom > frame.bottom)
  .map(([words]) => words);
"""
        assert driver.execute_script(script) == []
