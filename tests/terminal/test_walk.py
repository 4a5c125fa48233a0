"""A new user's walk through every command, wrong and right, typed into a terminal of 80 columns."""

import re
import shlex
import signal

import pytest

from acmix.data import export_digits
from tests.terminal.terminals import COLUMNS, Terminal

pytestmark = pytest.mark.terminal
TRAIN = "train digits --model acmix_resnet14_small --image-size 16"
COMMANDS = ["info", "train", "recipes", "validate", "predict", "explain", "demo", "report", "compare", "export"]
GROUPS = {
    "bench": ["layer", "model", "kernels", "scaling"],
    "data": ["check", "shard"],
    "study": ["run", "time", "show"],
}
EVERY = [*COMMANDS, *GROUPS, *(f"{group} {name}" for group, names in GROUPS.items() for name in names)]


@pytest.fixture(scope="module")
def terminal(tmp_path_factory):
    """In a folder whose name a shell would split, with images."""
    folder = tmp_path_factory.mktemp("a new user")
    for path in export_digits(folder / "photos", count=4):
        assert path.is_file()
    with pytest.MonkeyPatch.context() as environment:
        for name, value in {"TERM": "xterm", "NO_COLOR": "1", "OMP_NUM_THREADS": "1"}.items():
            environment.setenv(name, value)
        environment.delenv("COLUMNS", raising=False)
        yield Terminal(folder)


@pytest.fixture(scope="module")
def run(terminal):
    """A run, and what its training showed."""
    screen = terminal.end(terminal.start(f"{TRAIN} --epochs 2 --output 'runs/my run'"))
    assert screen.code == 0, screen.text
    return screen


def next_command(screen):
    """The command that a training prints to be pasted."""
    command = screen.lines[screen.lines.index("next:") + 1]
    assert command.startswith("acmix ")
    return command.removeprefix("acmix ")


@pytest.mark.parametrize("command", EVERY)
def test_help_fits_the_terminal(terminal, command):
    screen = terminal.type(f"{command} --help")
    assert screen.code == 0
    assert screen.lines[0].startswith(f"usage: acmix {command}")
    assert max(map(len, screen.lines)) <= COLUMNS
    assert not re.search(r"Literal|Optional|NoneType|typing|\bnull\b", screen.text)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("", "COMMAND is missing; use info, train, "),
        ("bench", "COMMAND is missing; use layer, model, kernels, scaling; see"),
        ("trian digits", "there is no command 'trian'; the nearest is train"),
        ("train", "DATA"),
        ("train digits --epoch 3", "there is no --epoch; the nearest is --epochs"),
        ("train digits --epochs three", "--epochs"),
        ("train digits --image-size 0", "--image-size must be"),
        ("train digits --recipe smal", "small"),
        ("train digits --model acmix_resnet5", "acmix_resnet50"),
        ("train nowhere", "nowhere"),
        ("train digits --device cuda:9", "--device"),
        ("validate nowhere digits", "nowhere"),
        ("predict nowhere photos", "nowhere"),
        ("explain nowhere photos --output explained", "nowhere"),
        ("export nowhere network.onx", ".onnx"),
        ("report nowhere", "nowhere"),
        ("compare nowhere", "nowhere"),
        ("info acmix_resnet5", "acmix_resnet50"),
        ("data check nowhere", "nowhere"),
        ("bench scaling foo", "AXIS"),
        ("bench layer --shapes 7x7", "--shapes"),
        ("study show nowhere.json", "nowhere.json"),
        ("recipes --name smal", "small"),
    ],
)
def test_wrong_arguments_are_one_line(terminal, command, words):
    screen = terminal.type(command)
    assert screen.code == 2, screen.text
    told = re.sub(r"\s+", " ", screen.text)
    assert words in told
    assert told.startswith("acmix")
    assert len(re.findall(r"(?:^|\n)acmix[^\n]*: error: ", screen.text)) == 1


def test_a_training_says_what_it_does_and_what_comes_next(terminal, run):
    for fact in (
        "training: digits",
        "validation: ",
        "network: acmix_resnet14_small",
        "device: cpu",
        "output: runs/my run",
    ):
        assert fact in run.text
    assert "epoch   2/2" in run.text
    assert terminal.type(next_command(run)).code == 0


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("validate 'runs/my run' digits", "top-1"),
        ("predict 'runs/my run' photos --top 2", "photos/"),
        ("predict 'runs/my run' photos --recursive --output predictions.csv", ""),
        ("predict 'runs/my run' photos --out drawn", ""),
        ("report 'runs/my run'", "report.html"),
        ("compare 'runs/my run'", "1 run"),
        ("info 'runs/my run'", "images of 3 x 16 x 16"),
        ("info", "backend cpu"),
        ("recipes", "small"),
        ("data check digits", "1,797"),
        ("bench layer --shapes 8x9 --seconds 0.1", "convolution"),
        ("bench scaling images --channels 4 --largest 2 --seconds 0.1", "exponent"),
        ("train digits --print-config", "learning_rate: "),
    ],
)
@pytest.mark.usefixtures("run")
def test_right_arguments_work(terminal, command, words):
    screen = terminal.type(command)
    assert screen.code == 0, screen.text
    assert words in screen.text


@pytest.mark.usefixtures("run")
def test_what_is_exported_predicts(terminal):
    for command, words in (
        ("export 'runs/my run' network.onnx", "largest difference"),
        ("predict network.onnx photos", "photos/"),
    ):
        screen = terminal.type(command)
        assert screen.code == 0, screen.text
        assert words in screen.text


@pytest.mark.usefixtures("run")
def test_an_image_is_explained(terminal):
    photo = next((terminal.folder / "photos").iterdir())
    screen = terminal.type(f"explain 'runs/my run' {shlex.quote(str(photo))} --output explained")
    assert screen.code == 0, screen.text
    assert (terminal.folder / "explained").is_dir()


def test_a_training_that_is_stopped_says_how_to_continue_and_does(terminal):
    child = terminal.start(f"{TRAIN} --epochs 3 --output 'runs/stopped run'")
    child.expect(r"epoch +1/3  training loss")
    child.kill(signal.SIGINT)
    screen = terminal.end(child)
    assert screen.code == 130
    (line,) = (line for line in screen.lines if line.startswith("acmix train: stopped"))
    command = line.partition("continue with: acmix ")[2]
    assert "--resume" in command
    finished = terminal.type(command)
    assert finished.code == 0, finished.text
    assert "epoch   3/3" in finished.text


def test_a_command_that_is_stopped_while_it_loads_says_so_in_one_line(terminal):
    child = terminal.start("info acmix_resnet50")
    child.expect("loading PyTorch")
    child.kill(signal.SIGINT)
    screen = terminal.end(child)
    assert screen.code == 130
    # The rest of the live line, then one line that stays.
    assert [line for line in screen.lines if line != "^C" and not re.fullmatch(r" *0:00:\d\d", line)] == [
        "acmix info: stopped"
    ]
