"""What convolution, attention and their sum are worth at equal depth, width, recipe and data: one controlled study."""

from acmix.study.page import as_markdown
from acmix.study.results import Study, Trained, load_study, save_study
from acmix.study.runs import RESULTS, Watching, run_study, time_study
from acmix.study.summary import Difference, Summary, differences, summarise
from acmix.study.variants import USUAL_VARIANTS, VARIANTS, Variant

__all__ = [
    "RESULTS",
    "USUAL_VARIANTS",
    "VARIANTS",
    "Difference",
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
]
