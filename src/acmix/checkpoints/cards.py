"""Model cards of trained networks for the Hugging Face hub."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from acmix.checkpoints.classifier import Classifier
from acmix.checkpoints.detector import Detector
from acmix.checkpoints.segmenter import Segmenter
from acmix.checkpoints.trained import TrainedNetwork, running_versions

_ACMIX = "[ACmix](https://arxiv.org/abs/2111.14556): convolution and self-attention in one operator"
# Of preprocessing: what is said elsewhere, or of masks of training.
_NOT_ON_CARDS = ("input_size", "mask_values", "ignored_values")
_WITH_TIMM = """\
With timm:

```python
import acmix.models  # registers its networks with timm
import timm

model = timm.create_model("hf-hub:USER/NAME", pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
logits = model(transform(image).unsqueeze(0))  # image: of PIL, RGB
```

With acmix:

```python
import acmix

network = acmix.load("hf-hub:USER/NAME")  # or a folder
labels, probabilities = network.predict(image)  # also of paths, arrays, several
print(labels[0])
```"""
_WITH_TIMM_LABELS = _WITH_TIMM.replace(
    "logits = model(transform(image).unsqueeze(0))", "probabilities = model(transform(image).unsqueeze(0)).sigmoid()"
).replace("print(labels[0])", "print(labels[0])  # those above 0.5, a tuple")
_DETECTING = """\
```python
import acmix

detector = acmix.load("hf-hub:USER/NAME")  # or a folder
(found,) = detector.predict(image, score=0.5)  # also of paths, arrays, several
for label, score, box in zip(found.labels, found.scores.tolist(), found.boxes.tolist()):
    print(f"{label} {score:.0%}", box)  # x1, y1, x2, y2 in pixels of the image
```"""
_DETECTING_MASKS = _DETECTING.replace(
    "```python\nimport acmix", "Of each object `found.masks` has the pixels.\n\n```python\nimport acmix"
)
_SEGMENTING = """\
It needs segmentation-models-pytorch.

```python
import acmix

segmenter = acmix.load("hf-hub:USER/NAME")  # or a folder
(labels,) = segmenter.predict(image)  # (H, W) of the image; also of paths, arrays, several
print(segmenter.classes[labels[0, 0]])
```"""


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """What a card says of a kind of network alone.

    Attributes:
        what: It is, as a sentence begins.
        noun: Of its classes.
        task: As the hub calls it.
        tags: Beside the task and acmix.
        library: That loads it.
        column: Of the epoch's row that tells how good it is.
        metric: What that is called.
        detail: Of it, behind the value.
        use: Programs.
    """

    what: str
    noun: str = "classes"
    task: str
    tags: tuple[str, ...] = ()
    library: str = "acmix"
    column: str
    metric: str
    detail: str = ""
    use: str


def _kind_of(trained: TrainedNetwork) -> _Kind:
    if isinstance(trained, Detector):
        masks = trained.model_name == "mask_rcnn"
        return _Kind(
            what=f"A detector of objects, boxes{' and masks' if masks else ''},",
            task="object-detection",
            tags=("instance-segmentation",) if masks else (),
            column="val_map",
            metric="AP",
            use=_DETECTING_MASKS if masks else _DETECTING,
        )
    if isinstance(trained, Segmenter):
        return _Kind(
            what="A segmenter, which gives every pixel a class,",
            task="image-segmentation",
            tags=("semantic-segmentation",),
            column="val_mean_iou",
            metric="mean IoU",
            use=_SEGMENTING,
        )
    timm: dict[str, Any] = {"task": "image-classification", "library": "timm"}
    if isinstance(trained, Classifier) and trained.multi_label:
        what = "A classifier of images that may have any number of the labels, each by itself, in timm's format,"
        tags, noun = ("timm", "multi-label"), "labels"
        return _Kind(what=what, noun=noun, tags=tags, column="val_map", metric="mAP", use=_WITH_TIMM_LABELS, **timm)
    what = "An image classifier in timm's format,"
    return _Kind(
        what=what, tags=("timm",), column="val_top1", metric="accuracy", detail=" top-1", use=_WITH_TIMM, **timm
    )


def model_card(trained: TrainedNetwork, license: str | None) -> ModelCard:  # noqa: A002
    """A page that says what a network is, how it is used, and how it was trained.

    Args:
        trained: The network.
        license: Of the weights; None says nothing of one.
    """
    kind, training = _kind_of(trained), trained.training
    best = training.get("metrics", {}).get(kind.column)
    # Names alone: a published page need not tell where on a disk they lie.
    data = Path(training.get("data", {}).get("location", "unknown")).name
    start = training.get("weights", "unknown")
    facts = {
        "Network": f"`{trained.network}`, {sum(p.numel() for p in trained.model.parameters()):,} parameters",
        "Input": f"RGB, {trained.seen}",
        "Preprocessing": ", ".join(
            f"{key} {item}" for key, item in trained.preprocessing.items() if key not in _NOT_ON_CARDS
        ),
        "Trained on": f"`{data}`",
        "Started from": "fresh weights" if start is None else f"`{Path(start).name}`",
        f"Validation {kind.metric}": "unknown" if best is None else f"{best:.2%}{kind.detail}",
        "Exported by": ", ".join(f"{library} {version}" for library, version in running_versions().items()),
    }
    text = [
        f"# {trained.network} for {len(trained.classes)} {kind.noun}",
        f"{kind.what} exported by acmix, an implementation of {_ACMIX}.",
        "\n".join(f"- **{name}:** {fact}" for name, fact in facts.items()),
        "## Use",
        kind.use,
        f"## {kind.noun.capitalize()}",
        _code_block(trained.classes, indent=None),
        "## Training",
        _code_block({key: training[key] for key in ("settings", "metrics") if key in training}, indent=2),
    ]
    head = _head(trained, kind, license, data, best)
    return ModelCard(f"---\n{head.to_yaml()}\n---\n\n" + "\n\n".join(text) + "\n")


def _head(
    trained: TrainedNetwork,
    kind: _Kind,
    license: str | None,  # noqa: A002
    data: str,
    best: float | None,
) -> ModelCardData:
    """What the hub reads of a card."""
    result = EvalResult(
        task_type=kind.task,
        dataset_type=data,
        dataset_name=data,
        dataset_split="validation",
        metric_type=kind.metric,
        metric_value=best,
    )
    return ModelCardData(
        library_name=kind.library,
        license=license,
        pipeline_tag=kind.task,
        tags=[kind.task, "acmix", *kind.tags],
        model_name=trained.network,
        eval_results=None if best is None else [result],
    )


def _code_block(content: Any, indent: int | None) -> str:
    # JSON escapes line ends, so that no name can end the block.
    return f"```json\n{json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=False)}\n```"
