import shutil
import subprocess

import pytest

from acmix.cli import main


def complete(script, line):
    """What bash offers after a line, by the script."""
    words = line.split(" ")
    program = (
        'source /dev/stdin; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_TYPE=9; _shtab_acmix 2>&1; '
        'printf "%s\\n" "${COMPREPLY[@]}"'
    )
    found = subprocess.run(  # noqa: S603
        [shutil.which("bash"), "-c", program, "bash", *words], input=script, capture_output=True, text=True, check=True
    )
    return {word.strip() for word in found.stdout.splitlines()}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_has_a_script_that_it_can_read(shell, capsys, tmp_path):
    with pytest.raises(SystemExit) as ended:
        main(["--completion", shell])
    assert ended.value.code == 0
    script = tmp_path / f"script.{shell}"
    script.write_text(capsys.readouterr().out)
    assert "validate" in script.read_text()
    if shutil.which(shell):
        subprocess.run([shutil.which(shell), "-n", script], check=True)  # noqa: S603


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_options_choices_and_files(capsys, tmp_path, monkeypatch):
    with pytest.raises(SystemExit):
        main(["--completion", "bash"])
    script = capsys.readouterr().out
    (tmp_path / "best.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    assert {"train", "bench", "explain"} <= complete(script, "acmix ")
    assert complete(script, "acmix val") == {"validate"}
    assert complete(script, "acmix bench sc") == {"scaling"}
    assert complete(script, "acmix train --weight-") == {"--weight-decay"}
    assert complete(script, "acmix train digits --precision ") == {"float32", "bfloat16", "float16"}
    assert complete(script, "acmix bench scaling ") >= {"pixels", "images"}
    assert complete(script, "acmix validate b") == {"best.safetensors"}
    assert complete(script, "acmix report run --output b") == {"best.safetensors"}


def test_other_shells_are_refused_by_name(capsys):
    assert main(["--completion", "tcsh"]) == 2
    assert "--completion: invalid choice: 'tcsh' (choose from" in capsys.readouterr().err
