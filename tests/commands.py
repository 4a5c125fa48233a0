"""Commands called as a person types them."""

from acmix.cli import main

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
