"""The built site in a real browser, narrow and wide, in both schemes: legible, whole, reached by keys, by itself."""

import functools
import http.server
import json
import threading

import pytest

from tests.browser import forget
from tests.docs.blocks import ROOT

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]
SITE = ROOT / "site"
PAGES = sorted(path.parent.relative_to(SITE).as_posix().removeprefix(".") for path in SITE.rglob("index.html"))
# Words with less contrast than 4.5 to what lies behind them, however many grounds shine through.
FAINT = """
const numbers = text => (text.match(/[\\d.]+/g) ?? [0, 0, 0, 0]).map(Number), found = [];
const over = ([red, green, blue, share = 1], ground) =>
  [red, green, blue].map((each, place) => share * each + (1 - share) * ground[place]);
const light = colour => colour.map(each => each / 255)
  .map(each => each <= 0.04045 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4)
  .reduce((sum, each, place) => sum + each * [0.2126, 0.7152, 0.0722][place], 0);
const grounds = new Map([[null, [255, 255, 255]]]);
const behind = each => {
  if (!grounds.has(each))
    grounds.set(each, over(numbers(getComputedStyle(each).backgroundColor), behind(each.parentElement)));
  return grounds.get(each);
};
const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), words = document.createRange();
while (texts.nextNode()) {
  const around = texts.currentNode.parentElement, style = getComputedStyle(around);
  words.selectNode(texts.currentNode);
  if (!texts.currentNode.data.trim() || !words.getBoundingClientRect().width) continue;
  if (!around.checkVisibility({opacityProperty: true, visibilityProperty: true})) continue;
  const ground = behind(around), both = [over(numbers(style.color), ground), ground].map(light);
  if ((Math.max(...both) + 0.05) / (Math.min(...both) + 0.05) < 4.5) found.push(texts.currentNode.data.trim());
}
return found;
"""
# Figures drawn so much smaller than they are that their numbers cannot be read.
SMALL = """
return [...document.querySelectorAll('article img')]
  .filter(each => each.clientWidth < 0.6 * each.naturalWidth).map(each => each.src);
"""


class Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address():
    if not PAGES:
        pytest.fail("there is no site: make docs")
    serve = functools.partial(Silent, directory=SITE)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def look(driver, width, scheme):
    size = {"width": width, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    reader = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", reader)


@pytest.mark.parametrize("half", [0, 1])
def test_every_page_is_whole_and_legible(driver, address, half):
    forget(driver)
    for page in PAGES[half::2]:
        driver.get(address + page)
        assert driver.title, page
        for width in (420, 1600):
            for scheme in ("light", "dark"):
                look(driver, width, scheme)
                assert driver.execute_script(FAINT) == [], (page, scheme, width)
            inner, outer = driver.execute_script(
                "const root = document.documentElement; return [root.scrollWidth, root.clientWidth]"
            )
            assert inner <= outer, (page, width)
            assert driver.execute_script(SMALL) == [], (page, width)
    assert driver.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = {event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"}
    assert any(each.startswith(address) for each in asked)
    assert [each for each in asked if not each.startswith((address, "data:", "blob:", "chrome"))] == []


@pytest.mark.parametrize("page", ["benchmarks/", "predicting/", "runtimes/"])
def test_tables_are_seen_whole_at_a_desk(driver, address, page):
    look(driver, 1280, "light")
    driver.get(address + page)
    inner = "return [...document.querySelectorAll('article table')].map(each => each.parentElement)"
    places = driver.execute_script(f"{inner}.map(each => [each.scrollWidth, each.clientWidth])")
    assert places
    assert all(wide <= place for wide, place in places)


def test_faint_words_are_found(driver, address):
    look(driver, 420, "light")
    driver.get(address)
    driver.execute_script("document.querySelector('h1').style.color = 'rgb(200, 200, 200)'")
    assert len(driver.execute_script(FAINT)) >= 1


def test_small_figures_are_found(driver, address):
    look(driver, 420, "light")
    driver.get(address + "derivation/")
    driver.execute_script("for (const each of document.querySelectorAll('article img')) each.style.maxWidth = '100%'")
    assert len(driver.execute_script(SMALL)) == 3


@pytest.mark.parametrize("page", ["", "why/", "detection/", "zh/train/"])
@pytest.mark.parametrize("width", [420, 1600])
def test_the_keyboard_reaches_what_is_shown(driver, address, width, page):
    from selenium.webdriver import ActionChains, Keys

    look(driver, width, "light")
    driver.get(address + page)
    # In the order in which they stand, the words of the page among them.
    wanted = driver.find_elements("css selector", "article a[href]:not(.headerlink)")
    assert wanted
    reached = []
    for _ in range(300):
        ActionChains(driver).send_keys(Keys.TAB).perform()
        each = driver.switch_to.active_element
        if each in wanted:
            assert each.value_of_css_property("outline-style") != "none"
            reached.append(each)
        if len(reached) == len(wanted):
            break
    assert reached == wanted
