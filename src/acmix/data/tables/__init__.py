"""Images whose labels stand in a table: CSV as people write it, with one label an image or any number."""

from acmix.data.tables.cells import is_table
from acmix.data.tables.finding import TableFile, check_no_classes, find_tables, has_table, is_unlabelled
from acmix.data.tables.images import TabledImages, open_tables, unnamed_images

__all__ = [
    "TableFile",
    "TabledImages",
    "check_no_classes",
    "find_tables",
    "has_table",
    "is_table",
    "is_unlabelled",
    "open_tables",
    "unnamed_images",
]
