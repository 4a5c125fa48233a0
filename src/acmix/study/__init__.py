"""What convolution, attention and their sum are worth at equal depth, width, recipe and data: one controlled study.

Everything is loaded when it is asked for: the command line, which needs the kinds alone, says its first word sooner.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from acmix.study.page import as_markdown
    from acmix.study.pretrained import Pretraining
    from acmix.study.results import Study, Trained, load_study, save_study
    from acmix.study.runs import RESULTS, run_study, time_study
    from acmix.study.summary import Difference, Summary, differences, summarise
    from acmix.study.training import Watching
    from acmix.study.variants import VARIANTS, Variant, usual_variants

__all__ = [
    "RESULTS",
    "VARIANTS",
    "Difference",
    "Pretraining",
    "Study",
    "Summary",
    "Trained",
    "Variant",
    "Watching",
    "as_markdown",
    "differences",
    "load_study",
    "run_study",
    "save_study",
    "summarise",
    "time_study",
    "usual_variants",
]

_LATER = {
    "as_markdown": "acmix.study.page",
    "Pretraining": "acmix.study.pretrained",
    **dict.fromkeys(("Study", "Trained", "load_study", "save_study"), "acmix.study.results"),
    **dict.fromkeys(("RESULTS", "run_study", "time_study"), "acmix.study.runs"),
    **dict.fromkeys(("Difference", "Summary", "differences", "summarise"), "acmix.study.summary"),
    "Watching": "acmix.study.training",
    **dict.fromkeys(("VARIANTS", "Variant", "usual_variants"), "acmix.study.variants"),
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'acmix.study' has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)
