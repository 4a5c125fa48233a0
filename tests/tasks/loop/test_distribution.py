"""Two and four processes against one: equal parameters after the same updates, metrics of all images."""

import json
import os
import signal
import socket
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import safetensors.torch
import torch

from acmix import InputError
from acmix.errors import PreemptedError, TrainingError
from acmix.tasks.classification.fitting import ROOM
from acmix.tasks.classification.settings import Settings
from acmix.tasks.loop import distribution, states
from acmix.tasks.loop.distribution import make_fabric
from acmix.tasks.loop.learner import Learner
from acmix.tasks.loop.progress import Reporting
from acmix.tasks.record import read_run

# Without batch norm, whose statistics are of a process's own images; with one, equality needs an accelerator.
SETTINGS = Settings(
    model="test_convnext.r160_in1k",
    epochs=2,
    batch_size=20,
    image_size=32,
    optimizer="sgd",
    learning_rate=0.05,
    weight_decay=1e-3,
    average_decay=0.8,
    clip_norm=5.0,
    label_smoothing=0.1,
)


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def train(data, output, settings, **options):
    return ROOM.fit(data, settings, Path(output), workers=0, check_images=False, **options)


def together(start, count, function, *arguments):
    """Run a function in processes as torchrun starts them, and give their exit codes."""
    common = {
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "GROUP_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "TORCHELASTIC_RUN_ID": "test",
    }
    processes = [
        start(function, *arguments, environment=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(count)
    ]
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    """One process that takes the images of all."""
    output = tmp_path_factory.mktemp("alone") / "run"
    train(data, output, SETTINGS)
    return output


def compare(found, expected, tolerance=2e-5):
    ours, theirs = (safetensors.torch.load_file(Path(run) / "last.safetensors") for run in (found, expected))
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        # Sums of gradients in another order.
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=tolerance, msg=lambda text, name=name: name + text)
    first, second = (
        [line.split(",") for line in (Path(run) / "metrics.csv").read_text().splitlines()] for run in (found, expected)
    )
    columns = [first[0].index(name) for name in ("train_loss", "val_loss", "val_top1")]
    for row, other in zip(first[1:], second[1:], strict=True):
        assert [float(row[i]) for i in columns] == pytest.approx([float(other[i]) for i in columns], abs=1e-4)


@pytest.mark.parametrize(
    ("count", "strategy", "changes"),
    [
        (2, "ddp", {"batch_size": 5, "accumulate": 2}),
        (2, "fsdp", {"batch_size": 5, "accumulate": 2}),
        (4, "ddp", {"batch_size": 5}),
        pytest.param(4, "fsdp", {"batch_size": 5}, marks=pytest.mark.slow),
    ],
)
def test_processes_learn_what_one_learns(data, alone, tmp_path, start, count, strategy, changes):
    settings = replace(SETTINGS, **changes)
    codes = together(start, count, lambda: train(data, tmp_path / "run", settings, strategy=strategy))
    assert codes == [0] * count
    compare(tmp_path / "run", alone)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["processes"], config["images_an_update"]) == (count, 20)
    # The evaluation of the best checkpoint is of all images.
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["validation"]["images"] == 12


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_all_processes_stop_together_and_resume(data, alone, tmp_path, start, strategy):
    output, settings = tmp_path / "run", replace(SETTINGS, batch_size=10)

    def stopped():
        def stop(progress):
            # A scheduler may tell one process before another.
            if (progress.epoch, progress.update) == (1, 1):
                os.kill(os.getpid(), signal.SIGTERM)

        with pytest.raises(PreemptedError):
            train(data, output, settings, strategy=strategy, reporting=Reporting(on_update=stop))

    assert together(start, 2, stopped) == [0, 0]
    assert states.read(states.paths(output)[-1])["updates"] == 2
    command = read_run(output).command
    assert command.startswith(f"torchrun --nproc-per-node 2 -m acmix train {data} ")
    assert "--devices" not in command
    resumed = together(start, 2, lambda: train(data, output, settings, strategy=strategy, resume=True))
    assert resumed == [0, 0]
    compare(output, alone)
    with pytest.raises(InputError, match="finished run"):
        train(data, output, settings, resume=True)


@pytest.mark.parametrize("number", [0, 2])
def test_what_is_left_says_in_a_line_that_a_process_was_killed(data, alone, tmp_path, start, number):
    output, settings = tmp_path / "run", replace(SETTINGS, batch_size=10)
    step = Learner._step

    def killed(learner, updates):
        if updates == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(learner, updates)

    def one_dies():
        if os.environ["RANK"] == "1":
            Learner._step = killed
        command = "torchrun --nproc-per-node 2 -m acmix train"
        with pytest.raises(TrainingError, match=rf"another process .* \(\S.*\); .* is kept, continue with: {command}"):
            train(data, output, settings)

    assert together(start, 2, one_dies) == [0, -signal.SIGKILL]
    assert json.loads((output / "stopped.json").read_text())["kind"] == "TrainingError"
    assert together(start, 2, lambda: train(data, output, settings, resume=True)) == [0, 0]
    compare(output, alone)


def test_a_process_without_the_data_stops_the_others(data, tmp_path, start):
    def one_has_none():
        here = os.environ["RANK"] == "0"
        error, reason = (TrainingError, "another process of this run ended") if here else (InputError, "nowhere")
        with pytest.raises(error, match=reason):
            train(data if here else str(tmp_path / "nowhere"), tmp_path / "run", SETTINGS)

    assert together(start, 2, one_has_none) == [0, 0]
    # What the first process began there is in nobody's way.
    settings = replace(SETTINGS, epochs=1)
    assert together(start, 2, lambda: train(data, tmp_path / "run", settings)) == [0, 0]


def test_processes_lose_patience_together(data, tmp_path, start):
    settings = replace(SETTINGS, batch_size=10, epochs=9, patience=1, learning_rate=1e-12, optimizer="adamw")
    assert together(start, 2, lambda: train(data, tmp_path / "run", settings)) == [0, 0]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["epochs"], summary["stopped_early"]) == (2, "1 epoch without a better top-1, patience = 1")


def test_resuming_needs_as_many_processes(data, tmp_path, start):
    def stopped():
        with pytest.raises(PreemptedError):
            train(
                data,
                tmp_path / "run",
                SETTINGS,
                reporting=Reporting(on_update=lambda _: os.kill(os.getpid(), signal.SIGTERM)),
            )

    assert together(start, 2, stopped) == [0, 0]
    with pytest.raises(InputError, match="processes was 2, is 1"):
        train(data, tmp_path / "run", SETTINGS, resume=True)


def test_arguments(monkeypatch):
    with pytest.raises(InputError, match="devices must be at least 1, got 0"):
        make_fabric("float32", devices=0)
    with pytest.raises(InputError, match="strategy fsdp does not scale the losses of float16"):
        make_fabric("float16", strategy="fsdp")
    for name in ("RANK", "LOCAL_RANK", "GROUP_RANK"):
        monkeypatch.setenv(name, "0")
    for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.setenv(name, "2")
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "test")
    with pytest.raises(InputError, match="devices is 3, but the launcher started 2 processes here"):
        make_fabric("float32", devices=3)


def test_the_device_is_that_of_the_processes(monkeypatch):
    asked = []
    monkeypatch.setattr(distribution, "Fabric", lambda **options: asked.append(options))
    monkeypatch.setattr(distribution, "find_device", torch.device)
    for device, accelerator, devices in (("cpu", "cpu", 1), ("cuda", "cuda", 1), ("cuda:1", "cuda", [1])):
        make_fabric("float32", device=device)
        assert (asked[-1]["accelerator"], asked[-1]["devices"]) == (accelerator, devices)
    make_fabric("float32", device="cuda", devices=2)
    assert asked[-1]["devices"] == 2
    with pytest.raises(InputError, match="device cuda:1 is one, 2 processes want one each; give cuda"):
        make_fabric("float32", device="cuda:1", devices=2)
    with pytest.raises(InputError, match="precision float16 needs an accelerator; choose .*, or another device"):
        make_fabric("float16", device="cpu")
    monkeypatch.undo()
    assert make_fabric("float32", device="cpu").device == torch.device("cpu")
    with pytest.raises(InputError, match="device must be one of auto, cpu"):
        make_fabric("float32", device="gpu")


def test_our_networks_are_split(data, tmp_path, start):
    settings = replace(SETTINGS, model="acmix_resnet14_small", epochs=1, batch_size=10, average_decay=None)
    for strategy in ("ddp", "fsdp"):
        output = tmp_path / strategy
        assert together(start, 2, lambda: train(data, output, settings, strategy=strategy)) == [0, 0]  # noqa: B023
    compare(tmp_path / "fsdp", tmp_path / "ddp")


ELASTIC = {"RANK": "0", "GROUP_RANK": "0", "LOCAL_RANK": "0"}


@pytest.mark.parametrize(
    ("environment", "typed"),
    [
        ({}, ""),
        (ELASTIC | {"WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}, ""),
        (ELASTIC | {"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "8"}, "torchrun --nproc-per-node 8 -m"),
        (
            ELASTIC | {"WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8"},
            "torchrun --nnodes 2 --rdzv-backend c10d --rdzv-endpoint HOST:PORT --nproc-per-node 8 -m",
        ),
        ({"SLURM_NTASKS": "16", "SLURM_NNODES": "2"}, "srun --nodes 2 --ntasks-per-node 8"),
        (
            {"SLURM_NTASKS": "8", "SLURM_GPUS_PER_NODE": "8"},
            "srun --nodes 1 --ntasks-per-node 8 --gpus-per-node 8",
        ),
    ],
)
def test_what_started_the_processes_is_what_a_person_types_again(monkeypatch, environment, typed):
    monkeypatch.setattr(distribution.TorchElasticEnvironment, "detect", lambda: "RANK" in environment)
    monkeypatch.setattr(distribution.SLURMEnvironment, "detect", lambda: "SLURM_NTASKS" in environment)
    for name in ("SLURM_NNODES", "SLURM_GPUS_PER_NODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert distribution.launcher() == typed.split()


@pytest.mark.parametrize(("cores", "processes", "count"), [(1, 1, 1), (6, 1, 6), (64, 1, 8), (16, 4, 4), (2, 8, 1)])
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system has no affinities")
def test_readers_share_the_cores_that_a_process_may_use(monkeypatch, cores, processes, count):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(distribution, "_launched", lambda: (processes, 2))
    assert distribution.readers(SimpleNamespace(world_size=2 * processes)) == count
    monkeypatch.setattr(distribution, "_launched", lambda: (None, 1))
    assert distribution.readers(SimpleNamespace(world_size=processes)) == count


@pytest.mark.parametrize(("cores", "own", "count"), [(6, "6", 6), (128, "4", 4), (16, None, 2)])
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system has no affinities")
def test_readers_take_the_cores_that_slurm_gives_a_process(monkeypatch, cores, own, count):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)))
    monkeypatch.setattr(distribution.SLURMEnvironment, "detect", lambda: True)
    for name, value in (("SLURM_NTASKS", "16"), ("SLURM_NNODES", "2"), ("SLURM_CPUS_PER_TASK", own)):
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    assert distribution.readers(SimpleNamespace(world_size=16)) == count
