"""The order of the pages, as site.yml has it."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

Entries = list[dict[str, Any]]


class NavigationError(Exception):
    """Pages and navigation do not agree."""


def navigation(language: str, pages: Iterable[str]) -> Entries:
    """What generators of sites call `nav`.

    Args:
        language: "en" or "zh".
        pages: All pages of its site.

    Raises:
        NavigationError: If a page is in no place, or a place has no page.
    """
    left = set(pages)
    entries = _filled(yaml.safe_load(Path(__file__).with_name("site.yml").read_text())[language], left)
    if left:
        raise NavigationError(f"{', '.join(sorted(left))}: in no place of site.yml's {language}")
    return entries


def _filled(entries: Entries, left: set[str]) -> Entries:
    """Entries with what folders hold, without pages that may be missing and are; what is placed leaves `left`."""
    filled = []
    for entry in entries:
        ((title, content),) = entry.items()
        if isinstance(content, list):
            filled.append({title: _filled(content, left)})
        elif content.removesuffix("*") in left:
            filled.append({title: content.removesuffix("*")})
            left.discard(content.removesuffix("*"))
        elif inside := sorted(page for page in left if page.startswith(f"{content}/")):
            left.difference_update(inside)
            filled.append({title: inside})
        elif not content.endswith("*"):
            raise NavigationError(f"{content}: site.yml has a place for it, and there is no such page")
    return filled
