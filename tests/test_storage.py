"""Files whole or not at all, and nothing left of processes that were killed."""

import json
import multiprocessing
import os
import signal
import stat
import time

import pytest

from acmix import storage
from acmix.storage import folder_beside, held, replacing, write_atomically


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def killed(function, *arguments):
    """Run a function in a process that gets SIGKILL in the midst of it."""
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def die_writing(path):
    with replacing(path) as file:
        file.write(b"half")
        os.kill(os.getpid(), signal.SIGKILL)


def die_in_a_folder(path):
    with folder_beside(path) as folder:
        (folder / "half").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)


def test_what_killed_processes_leave_goes_with_the_next_write(tmp_path):
    write_atomically(tmp_path / "kept", "old")
    for number in range(3):
        killed(die_writing, tmp_path / f"file-{number}")
        # Never more than the last one.
        assert len(names(tmp_path)) == 2
    killed(die_in_a_folder, tmp_path / "folder")
    assert len(names(tmp_path)) == 2
    (tmp_path / ".other.partial").touch()
    write_atomically(tmp_path / "kept", "new")
    assert names(tmp_path) == [".other.partial", "kept"]
    assert (tmp_path / "kept").read_text() == "new"


def test_what_is_being_written_is_not_swept(tmp_path):
    with replacing(tmp_path / "file") as file, folder_beside(tmp_path / "folder") as folder:
        for other in ("file", "other"):
            write_atomically(tmp_path / other, "at once")
        file.write(b"later")
        assert folder.is_dir()
    assert names(tmp_path) == ["file", "other"]
    assert (tmp_path / "file").read_bytes() == b"later"


def write_often(path, count):
    for number in range(count):
        write_atomically(path, str(number) * 1000)


def test_writers_of_one_file_do_not_meet(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_often, args=(tmp_path / "file", 40)) for _ in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "39" * 1000


def fail_writing(path, error):
    with replacing(path) as file:
        file.write(b"new")
        raise error


def fail_in_a_folder(path, error):
    with folder_beside(path) as folder:
        (folder / "new").touch()
        raise error


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("function", [fail_writing, fail_in_a_folder])
def test_a_failure_leaves_the_old_file_alone(tmp_path, function, error):
    write_atomically(tmp_path / "file", "old")
    with pytest.raises(error):
        function(tmp_path / "file", error)
    assert names(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def hold(folder, told):
    with held(folder) as free:
        # What is forked has the lock's descriptor, and is no reason to keep it.
        multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,), daemon=True).start()
        told.send(free)
        told.recv()


def test_a_folder_is_held_by_one(tmp_path, monkeypatch):
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=hold, args=(tmp_path, theirs))
    process.start()
    assert ours.recv()
    monkeypatch.setattr(storage, "PATIENCE", 0.0)
    with held(tmp_path) as free:
        assert not free
    # The one that asked in vain has not given it back for the other.
    with held(tmp_path) as free:
        assert not free
    ours.send("end")
    monkeypatch.setattr(storage, "PATIENCE", 20.0)
    with held(tmp_path) as free:
        assert free
    with held(tmp_path) as free:
        assert free
    process.join()
    assert list(tmp_path.iterdir()) == []


def test_a_killed_process_holds_nothing(tmp_path):
    context = multiprocessing.get_context("fork")

    def die():
        with held(tmp_path):
            os.kill(os.getpid(), signal.SIGKILL)

    process = context.Process(target=die)
    process.start()
    process.join()
    with held(tmp_path) as free:
        assert free


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "none" / "file", "new")


@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_rights_are_what_the_process_gives(tmp_path, mask):
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "file", "new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~mask


def test_the_rights_of_the_process_are_not_touched(tmp_path, monkeypatch):
    # Set for a moment only, they hold for every thread.
    monkeypatch.setattr(os, "umask", lambda _: pytest.fail("the umask is everybody's"))
    write_atomically(tmp_path / "file", "new")


def test_without_locks_nothing_is_swept(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    (tmp_path / ".acmix-0.partial").touch()
    write_atomically(tmp_path / "file", "new")
    assert names(tmp_path) == [".acmix-0.partial", "file"]
    with held(tmp_path) as free, held(tmp_path) as other:
        assert free
        assert other


def test_names_that_are_no_text_can_be_written(tmp_path):
    content = {"location": os.fsdecode(b"/data/caf\xe9"), "classes": ["größer"]}
    write_atomically(tmp_path / "config.json", json.dumps(content, ensure_ascii=False))
    text = (tmp_path / "config.json").read_text(encoding="utf-8")
    assert json.loads(text) == content
    assert "größer" in text
