"""Time and memory of callables, measured so that their ratios hold on a machine whose speed drifts."""

import gc
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile


@dataclass(frozen=True)
class Timing:
    """Seconds a call: median and quartiles of `runs` interleaved calls."""

    median: float
    lower: float
    upper: float
    runs: int


def time_interleaved(calls: Mapping[str, Callable[[], object]], seconds: float, rounds: int = 7) -> dict[str, Timing]:
    """Time callables in turn, A B C A B C ..., after one warm-up round.

    Args:
        calls: Name to callable.
        seconds: Time to spend on the whole comparison; at least `rounds` rounds are run whatever they take.
        rounds: Fewest rounds.

    Returns:
        Name to timing, in the order given.
    """
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    gc.collect()
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline or len(next(iter(samples.values()))) < rounds:
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            samples[name].append(time.perf_counter() - start)
    timings = {}
    for name, values in samples.items():
        lower, median, upper = statistics.quantiles(values, n=4)
        timings[name] = Timing(median, lower, upper, len(values))
    return timings


def peak_memory(call: Callable[[], object]) -> int:
    """Largest number of bytes that PyTorch's CPU allocator held during a call beyond what it held before."""
    call()
    gc.collect()
    # Without a GPU the profiler would write to the terminal that it found none.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    results = profiler.profiler.kineto_results if profiler.profiler else None
    if results is None:
        raise RuntimeError("PyTorch's profiler did not start; is another one running?")
    held = peak = 0
    for event in results.events():
        if event.name() == "[memory]" and event.device_type() == torch.profiler.DeviceType.CPU:
            # PyTorch's stubs lack it.
            held += event.nbytes()  # pyrefly: ignore[missing-attribute]
            peak = max(peak, held)
    return peak
