"""The browser that tests of pages look with."""

from tests.browser import driver

__all__ = ["driver"]
