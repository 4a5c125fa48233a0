"""A headless Chromium."""

import shutil

import pytest

# Without motion nobody waits for a colour, nor reads one on its way to another.
SWITCHES = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-component-update "
    "--disable-sync --force-prefers-reduced-motion"
)


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    browser, program = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or program is None:
        pytest.skip("Chromium is missing: apt-get install chromium chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for switch in (*SWITCHES.split(), f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(program))
    yield driver
    driver.quit()


def forget(driver):
    """Leave what another test looked at, and what the browser noted of it."""
    driver.get("about:blank")
    for kind in ("browser", "performance"):
        driver.get_log(kind)
