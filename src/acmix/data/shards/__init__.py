"""Webdataset shards: tar files of images with their labels, on this machine or behind fsspec."""

from acmix.data.shards.source import ShardedImages, open_shards
from acmix.data.shards.urls import has_shards, is_pattern, is_remote, list_folder, list_pattern

__all__ = ["ShardedImages", "has_shards", "is_pattern", "is_remote", "list_folder", "list_pattern", "open_shards"]
