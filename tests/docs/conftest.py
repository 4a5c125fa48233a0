"""The browser that tests of docs look with."""

from tests.browser import driver

__all__ = ["driver"]
