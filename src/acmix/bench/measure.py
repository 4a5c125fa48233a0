"""Time and memory of callables, measured so that their ratios hold on a machine whose speed drifts."""

import gc
import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch.profiler import ProfilerActivity, profile

# Hears how many more seconds of those to spend are spent.
Hearer = Callable[[float], object]


def nobody(seconds: float) -> None:
    """Hear nothing."""
    del seconds


@dataclass(frozen=True)
class Timing:
    """Seconds a call over `runs` interleaved calls: the fastest, the quartiles and the median."""

    fastest: float
    lower: float
    median: float
    upper: float
    runs: int


def time_interleaved(
    calls: Mapping[str, Callable[[], object]],
    seconds: float,
    runs: int = 3,
    device: torch.device | None = None,
    tell: Hearer = nobody,
) -> dict[str, Timing]:
    """Time callables in turn, A B C A B C ..., after one warm-up round, with equal shares of time.

    A callable that has used more than its share waits until the others have caught up: a slow one leaves quick ones
    as many runs as its time is worth.

    Args:
        calls: Name to callable.
        seconds: Time to spend on the whole comparison; longer where `runs` take longer.
        runs: Fewest runs of each callable, at least 2.
        device: Where they compute; a GPU's own clock times what runs on it, with its cache emptied before.
        tell: Called between runs, and in sum with `seconds`.

    Returns:
        Name to timing, in the order given.
    """
    kind = "cpu" if device is None else device.type
    clock = _GpuClock(device) if device and kind == "cuda" else _seconds if kind == "cpu" else _synchronised_seconds
    for call in calls.values():
        call()
    samples: dict[str, list[float]] = {name: [] for name in calls}
    gc.collect()
    began, told = time.perf_counter(), 0.0
    while (spent := time.perf_counter() - began) < seconds or any(len(values) < runs for values in samples.values()):
        tell(min(spent, seconds) - told)
        told = min(spent, seconds)
        used = {name: sum(values) for name, values in samples.items()}
        # Rounding may bring the mean of equal times below them.
        share = max(statistics.fmean(used.values()), min(used.values()))
        for name, call in calls.items():
            if used[name] <= share:
                samples[name].append(clock(call))
    tell(seconds - told)
    timings = {}
    for name, values in samples.items():
        lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
        timings[name] = Timing(min(values), lower, median, upper, len(values))
    return timings


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _synchronised_seconds(call: Callable[[], object]) -> float:
    """On accelerators that work on their own, but for CUDA's."""
    torch.accelerator.synchronize()
    return _seconds(lambda: (call(), torch.accelerator.synchronize()))


class _GpuClock:
    """Seconds between two events on a GPU's stream; waiting for the host to launch counts, as in use."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        cache = torch.cuda.get_device_properties(device).L2_cache_size
        self.flushed = torch.empty(2 * cache, dtype=torch.int8, device=device)

    def __call__(self, call: Callable[[], object]) -> float:
        """Time one call that starts with nothing of its input in the cache."""
        with torch.cuda.device(self.device):
            self.flushed.zero_()
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            end.synchronize()
            return start.elapsed_time(end) / 1e3


def as_graph(call: Callable[[], object]) -> Callable[[], object]:
    """The call's GPU work captured in a CUDA graph, so that its launches cost nothing."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def withheld_share(seconds: float = 1.0) -> float:
    """Share of time in which the machine does not let one busy thread run; above a few hundredths, trust no median.

    A virtual machine may lend less of a processor than it shows. A thread that reads the clock without pause sees
    each interruption as a gap; gaps above a millisecond are summed.
    """
    start = last = time.perf_counter()
    lost = 0.0
    while last - start < seconds:
        now = time.perf_counter()
        if now - last > 1e-3:
            lost += now - last
        last = now
    return lost / (last - start)


def peak_memory(call: Callable[[], object], device: torch.device | None = None) -> int:
    """Largest number of bytes that PyTorch's allocator held on the device during a call beyond what it held before."""
    call()
    gc.collect()
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return torch.cuda.max_memory_allocated(device) - before
    # Without a GPU the profiler would write to the terminal that it found none.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiler:
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
