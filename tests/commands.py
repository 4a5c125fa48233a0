"""Commands called as a person types them."""

from acmix.cli import main
from acmix.cli.display import progress

# What is done by then shows no progress; on a busy machine that may be anything. Tests of the lines set it themselves.
progress._FIRST = 1e6

# Options that train a small network of timm's for one epoch.
FAST = ["--model", "test_resnet.r160_in1k", "--image-size", "32", "--epochs", "1", "--batch-size", "512"]


def call(capsys, *arguments):
    """Exit code, stdout and stderr of a command."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as error:
        code = error.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err
