"""Labelled images: open folders, shards, saved datasets, IDX files or digits, check, split and transform them."""

from acmix.data.bundled import Digits, Mnist5k
from acmix.data.datasets import ImageData, export_digits, open_dataset
from acmix.data.evaluation import (
    DataRecord,
    EvaluationImages,
    data_record,
    data_record_if_any,
    find_evaluation,
    open_evaluation,
)
from acmix.data.huggingface import HuggingFaceImages
from acmix.data.idx import IdxImages
from acmix.data.images import read_image
from acmix.data.labelled import LabelledImages
from acmix.data.loading import image_loader, training_loader
from acmix.data.shards import ShardedImages
from acmix.data.sources import EncodedImage, ImageSource, SplittableImages
from acmix.data.trained import TrainedImages
from acmix.data.transforms import preprocessing_for, training_transform

__all__ = [
    "DataRecord",
    "Digits",
    "EncodedImage",
    "EvaluationImages",
    "HuggingFaceImages",
    "IdxImages",
    "ImageData",
    "ImageSource",
    "LabelledImages",
    "Mnist5k",
    "ShardedImages",
    "SplittableImages",
    "TrainedImages",
    "data_record",
    "data_record_if_any",
    "export_digits",
    "find_evaluation",
    "image_loader",
    "open_dataset",
    "open_evaluation",
    "preprocessing_for",
    "read_image",
    "training_loader",
    "training_transform",
]
