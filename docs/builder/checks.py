"""What a built site must hold: links that lead somewhere, nothing fetched from elsewhere, a picture's words."""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src"}


class Page(HTMLParser):
    """What a page links, loads and names."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors = {""}
        self.problems: list[str] = []
        self.feed(text)

    def handle_data(self, data: str) -> None:
        """Take words."""
        if mark := re.match(r"\.\. \w+::", data.strip()):
            self.problems.append(f"a mark that is for programs: {mark.group()}")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take an element."""
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag == "link" and given.get("rel") not in {"canonical", "prev", "next", "alternate"}:
            self.loaded.append(given.get("href", ""))
        if tag in _LOADED:
            self.loaded.append(given.get(_LOADED[tag], ""))
        if tag == "img" and not given.get("alt"):
            self.problems.append(f"a picture without words: {given.get('src')}")


def problems(site: Path) -> list[str]:
    """Every fault of a built site, a line each.

    Args:
        site: The folder.
    """
    pages = {path: Page(path.read_text()) for path in sorted(site.rglob("*.html"))}
    found = []
    for path, page in pages.items():
        name = path.relative_to(site)
        found += [f"{name}: {problem}" for problem in page.problems]
        found += [f"{name}: fetches {address}" for address in page.loaded if urlsplit(address).netloc]
        # The page of errors is served at any address; its links are those of the root.
        base = site if path.name == "404.html" else path.parent
        for link in [*page.links, *page.loaded]:
            if (why := _broken(link, base, path, site, pages)) is not None:
                found.append(f"{name}: {link} {why}")
    for style in sorted(site.rglob("*.css")):
        found += [f"{style.relative_to(site)}: fetches {url}" for url in _fetched(style.read_text())]
    return found


def _fetched(style: str) -> list[str]:
    return re.findall(r"""(?:url\(|@import\s*)["']?((?:https?:)?//[^"')\s]+)""", style)


def _broken(link: str, base: Path, path: Path, site: Path, pages: dict[Path, Page]) -> str | None:
    """Why a link leads nowhere; None if it leads somewhere, or away from the site."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None
    place = unquote(parts.path)
    target = path if not place else (site / place.lstrip("/") if place.startswith("/") else base / place).resolve()
    target = target / "index.html" if target.is_dir() else target
    if not target.exists():
        return "leads nowhere"
    anchors = pages[target].anchors if target in pages else {""}
    return None if unquote(parts.fragment) in anchors else "has no such place"
