"""What `acmix info` shows."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich import get_console
from rich.markup import escape

from acmix.cli.display.tables import make_table, print_json
from acmix.errors import counted

if TYPE_CHECKING:
    from acmix.accounting import Account, Cost, NetworkCost
    from acmix.checkpoints.trained import TrainedNetwork

# More classes are not read on a terminal; --json has them.
_NAMED = 8


def show_environment(found: Mapping[str, Any], *, as_json: bool) -> None:
    """Show what acmix runs on."""
    if as_json:
        print_json(found)
        return
    table = make_table("acmix and what it runs on", show_header=False)
    for name, value in found["versions"].items():
        table.add_row(name, value)
    table.add_row("python", found["python"])
    table.add_row("system", found["system"])
    table.add_row("processor", f"{found['processor']}, {counted(found['cores'] or 1, 'core')}, {found['instructions']}")
    table.add_row("threads", f"{found['threads']} of PyTorch")
    if found["memory"] is not None:
        table.add_row("memory", f"{found['memory'] / 2**30:.1f} GiB")
    for gpu in found["gpus"]:
        table.add_row("GPU", f"{gpu['name']}, {gpu['memory'] / 2**30:.1f} GiB, CUDA {found['cuda']}")
    if not found["gpus"]:
        table.add_row("GPU", "PyTorch sees none")
    for name, reason in found["backends"].items():
        table.add_row(f"backend {name}", escape(_works(name, found) if reason is None else f"missing: {reason}"))
    for name, value in found["variables"].items():
        table.add_row(name, escape(value))
    get_console().print(table)


def _works(backend: str, found: Mapping[str, Any]) -> str:
    return f"works, compiled kernels: {found['kernels']}" if backend == "cpu" else "works"


def show_network(
    name: str,
    account: "Account",
    trained: "TrainedNetwork | None",
    environment: Mapping[str, Any],
    *,
    as_json: bool,
) -> None:
    """Show a network's cost beside its twin's, and of a checkpoint what it is."""
    if as_json:
        parts = {"network": account.network, "twin": account.twin}
        counted = {key: asdict(cost) | {"total": asdict(cost.total)} for key, cost in parts.items()}
        checkpoint: dict[str, Any] = {} if trained is None else {"checkpoint": _record(trained)}
        print_json(
            {"model": name, "input_size": account.input_size} | counted | checkpoint | {"environment": environment}
        )
        return
    if trained is not None:
        _show_checkpoint(name, trained)
    table = make_table(f"{escape(name)}, input {' x '.join(map(str, account.input_size))}")
    # Only convolutional networks have a twin.
    costs = [account.network] if account.twin == account.network else [account.network, account.twin]
    for heading in ("part", *("parameters", "multiply-adds") * len(costs)):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    for part in ("projection", "attention", "convolution", "other", "total"):
        cells = (cell for cost in costs for cell in _cells(cost, part))
        table.add_row(part, *cells, end_section=part == "other")
    if len(costs) > 1:
        table.caption = "left: this network; right: the same network with convolutions in place of the operator"
    console = get_console()
    console.print(table)
    for kind, count in account.network.uncounted.items():
        console.print(f"multiply-adds of {kind} ({count:,} parameters) are not counted", highlight=False)
    kernels = {"cpu": "compiled CPU"} | ({"triton": "Triton"} if environment["gpus"] else {})
    for backend, kind in kernels.items():
        if (missing := environment["backends"][backend]) is not None:
            console.print(
                f"the {kind} kernels are missing, portable takes their place: {missing}", markup=False, highlight=False
            )
    if environment["kernels"]:
        console.print(f"the compiled CPU kernels use {environment['kernels']}", highlight=False)


def _record(trained: "TrainedNetwork") -> dict[str, Any]:
    """What a checkpoint says of itself, but for the digests of the images that it was trained on."""
    return {
        "task": trained.task,
        "model_name": trained.model_name,
        "model_arguments": trained.model_arguments,
        "classes": trained.classes,
        "preprocessing": trained.preprocessing,
        "training": {key: value for key, value in trained.training.items() if key != "trained_images"},
        "versions": trained.versions,
    } | trained.marks


def _show_checkpoint(name: str, trained: "TrainedNetwork") -> None:
    table = make_table(escape(name), show_header=False)
    classes = ", ".join(trained.classes[:_NAMED]) + (", ..." if len(trained.classes) > _NAMED else "")
    table.add_row("network", f"{trained.network}, images of {trained.seen}")
    table.add_row("task", trained.task)
    several = ", any number an image" if trained.marks.get("multi_label") else ""
    table.add_row("classes", escape(f"{len(trained.classes):,}: {classes}{several}"))
    taken, metrics = trained.training.get("taken", {}), trained.training.get("metrics", {})
    for fact, sentence in taken.items():
        table.add_row(fact, escape(str(sentence)))
    if "epoch" in metrics:
        epochs = trained.training.get("settings", {}).get("epochs", "?")
        table.add_row("epoch", f"{metrics['epoch']} of {epochs}")
    for fact, value in metrics.items():
        if fact.startswith("val_"):
            table.add_row(fact, f"{value:.4f}")
    table.add_row("written by", ", ".join(f"{package} {version}" for package, version in trained.versions.items()))
    get_console().print(table)


def _cells(cost: "NetworkCost", part: str) -> tuple[str, str]:
    value: Cost = getattr(cost, part)
    return f"{value.parameters / 1e6:.3f} M", f"{value.multiply_adds / 1e6:,.1f} M"
