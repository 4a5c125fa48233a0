"""Images with the objects in them, boxes and segments: open COCO's and YOLO's annotations, check and split them."""

from acmix.data.annotated.evaluation import find_annotated_evaluation
from acmix.data.annotated.images import AnnotatedImages
from acmix.data.annotated.objects import Annotations
from acmix.data.annotated.opening import AnnotatedData, open_annotated
from acmix.data.annotated.segments import Polygons, Runs, Segment

__all__ = [
    "AnnotatedData",
    "AnnotatedImages",
    "Annotations",
    "Polygons",
    "Runs",
    "Segment",
    "find_annotated_evaluation",
    "open_annotated",
]
