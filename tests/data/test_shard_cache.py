"""Remote shards: fetched whole, checked, kept within bounds, counted once."""

import multiprocessing
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread

import fsspec
import pytest

from acmix import InputError
from acmix.data.shards import ShardedImages, cache, open_shards, room, scan
from acmix.data.shards.urls import list_folder, list_pattern
from tests.shards import write_shard, write_three

_PART = 4096
FORK = multiprocessing.get_context("fork")


class Server(ThreadingHTTPServer):
    """Serves a folder; `cuts` says for a path how many answers to cut short, `requests` counts them."""

    daemon_threads = True

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder, self.cuts, self.requests, self.missing = folder, {}, [], 404
        # Paths whose size is not said, or said too small by so much; and seconds between the parts of an answer.
        self.unsized, self.understated, self.pause = set(), {}, 0.0
        self.answering = Event()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.answer(with_content=False)

    def do_GET(self):
        self.answer(with_content=True)

    def answer(self, with_content):
        file = self.server.folder / self.path.lstrip("/")
        if not file.is_file():
            self.send_error(self.server.missing)
            return
        content = file.read_bytes()
        self.send_response(200)
        if self.path not in self.server.unsized:
            less = 0 if with_content else self.server.understated.get(self.path, 0)
            self.send_header("Content-Length", str(len(content) - less))
        self.end_headers()
        if not with_content:
            return
        self.server.requests.append(self.path)
        if self.server.cuts.get(self.path, 0):
            self.server.cuts[self.path] -= 1
            content = content[: len(content) // 2]
            self.close_connection = True
        self.server.answering.set()
        # A client that was killed reads no more.
        with suppress(ConnectionError):
            for begin in range(0, len(content), _PART):
                self.wfile.write(content[begin : begin + _PART])
                time.sleep(self.server.pause)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path / "served")
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ACMIX_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "shards"


def copies(folder):
    return sorted(path.name.partition("-")[2] for path in folder.iterdir() if path.is_file())


def test_a_remote_shard_is_fetched_once(server, folder):
    written = write_shard(server.folder / "a.tar", [0, 1])
    for _ in range(2):
        with cache.open_shard(f"{server.url}/a.tar") as file:
            assert file.read() == written.read_bytes()
    assert server.requests == ["/a.tar"]
    assert copies(folder) == ["a.tar"]
    with cache.open_shard(f"{server.url}/a.tar", size=5):
        assert len(server.requests) == 2


def test_a_truncated_shard_is_fetched_again_once(server, folder):
    write_shard(server.folder / "a.tar", [0, 1])
    server.cuts["/a.tar"] = 1
    with cache.open_shard(f"{server.url}/a.tar"):
        assert len(server.requests) == 2
    server.cuts["/b.tar"] = 2
    write_shard(server.folder / "b.tar", [0, 1])
    with pytest.raises(InputError, match=r"shard http.*/b\.tar cannot be fetched, tried twice"):
        cache.open_shard(f"{server.url}/b.tar")
    assert copies(folder) == ["a.tar"]


def test_content_that_is_no_tar_file_is_refused(folder):
    fsspec.filesystem("memory").pipe("/page/a.tar", b"<html>sign in</html>")
    with pytest.raises(InputError, match="do not end as a tar file does"):
        cache.open_shard("memory://page/a.tar")
    assert copies(folder) == []


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("memory://none/a.tar", "does not exist"),
        ("http://127.0.0.1:9/a.tar", "cannot be reached: Cannot connect"),
        ("nothing://a.tar", "Protocol not known: nothing"),
        ("/none/a.tar", "does not exist"),
    ],
)
def test_shards_that_are_not_there(url, rule):
    with pytest.raises(InputError, match=rf"{url}.*{rule}"):
        cache.open_shard(url)


def test_the_least_recently_used_make_room(server, folder, monkeypatch):
    sizes = [write_shard(server.folder / f"{name}.tar", [0, 1]).stat().st_size for name in "abcd"]
    monkeypatch.setenv("ACMIX_CACHE_SIZE", str(3 * sizes[0]))
    kept = {name: cache.open_shard(f"{server.url}/{name}.tar") for name in "abc"}
    for age, name in enumerate("cba"):
        path = next(folder.glob(f"*-{name}.tar"))
        os.utime(path, (1e9 - age, 1e9 - age))
    (folder / ".7-99999").write_bytes(b"half")
    cache.open_shard(f"{server.url}/a.tar").close()
    cache.open_shard(f"{server.url}/d.tar").close()
    assert copies(folder) == ["a.tar", "c.tar", "d.tar"]
    assert len(kept["b"].read()) == sizes[1]
    for file in kept.values():
        file.close()
    monkeypatch.setenv("ACMIX_CACHE_SIZE", "0.001KB")
    with pytest.raises(InputError, match=f"{sizes[0]:,} bytes, ACMIX_CACHE_SIZE allows 1 for all"):
        cache.open_shard(f"{server.url}/b.tar")
    monkeypatch.setenv("ACMIX_CACHE_SIZE", "big")
    with pytest.raises(InputError, match="size as in 500GB, got 'big'"):
        cache.open_shard(f"{server.url}/b.tar")


def test_a_page_that_is_missing_is_said(server):
    with pytest.raises(InputError, match="cannot be reached: 404"):
        cache.open_shard(f"{server.url}/none.tar")
    with pytest.raises(InputError, match="cannot be read"):
        list_pattern("http://127.0.0.1:9/a.tar")


def test_a_store_that_hides_what_is_missing(server):
    server.missing = 403
    write_shard(server.folder / "a.tar", [0, 1])
    listing = list_pattern(f"{server.url}/a.tar")
    assert (listing.lengths, listing.classes) == (None, None)
    assert len(open_shards({"train": listing})["train"]) == 2
    with pytest.raises(InputError, match="cannot be reached: 403"):
        open_shards({"train": list_pattern(f"{server.url}/none.tar")})


def fetch(url):
    with cache.open_shard(url) as file:
        return len(file.read())


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_processes_fetch_the_same_shard_once(server):
    size = write_shard(server.folder / "a.tar", [0] * 40).stat().st_size
    with FORK.Pool(3) as pool:
        assert set(pool.map(fetch, [f"{server.url}/a.tar"] * 6)) == {size}
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(fetch, [f"{server.url}/a.tar"] * 8)) == {size}
    assert server.requests == ["/a.tar"]


def fetch_all(server_url, sizes, seed):
    names = sorted(sizes) * 2
    random.Random(seed).shuffle(names)  # noqa: S311
    for name in names:
        assert fetch(f"{server_url}/{name}") == sizes[name]


def fill(server, counts):
    """Shards of so many images, and the sizes of their files by name."""
    names = [f"{number}.tar" for number in range(len(counts))]
    return {
        name: write_shard(server.folder / name, [0] * count).stat().st_size
        for name, count in zip(names, counts, strict=True)
    }


def taken(folder):
    """Bytes of all files, and what is reserved beyond them, at one moment."""
    with room.lock(folder, "room"):
        # Those that arrive and those that are dropped ask nobody.
        total = 0
        for file in folder.iterdir():
            with suppress(FileNotFoundError):
                found = room._PARTIAL.fullmatch(file.name)
                arrived = file.stat().st_size if file.is_file() else 0
                assert found is None or arrived <= int(found[2])
                total += int(found[2]) if found else arrived
        return total


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
@pytest.mark.parametrize("unsized", [False, True])
def test_processes_keep_within_the_bound_together(server, folder, monkeypatch, unsized):
    sizes = fill(server, (4, 8, 12, 16, 20, 4, 8, 12))
    limit = max(sizes.values()) * 2 - 1
    monkeypatch.setenv("ACMIX_CACHE_SIZE", str(limit))
    server.pause = 0.001
    server.unsized = {f"/{name}" for name in list(sizes)[::3]} if unsized else set()
    (folder / "locks").mkdir(parents=True)
    processes = [FORK.Process(target=fetch_all, args=(server.url, sizes, seed)) for seed in range(8)]
    for process in processes:
        process.start()
    found = []
    while any(process.is_alive() for process in processes):
        found.append(taken(folder))
        time.sleep(0.002)
    assert [process.exitcode for process in processes] == [0] * 8
    assert len(found) > 20
    assert max(found) <= limit
    # There was need to wait, and no fetch left anything.
    assert max(found) > max(sizes.values())
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_room_of_a_killed_process_is_free_again(server, folder, monkeypatch):
    sizes = fill(server, (30, 30))
    monkeypatch.setenv("ACMIX_CACHE_SIZE", str(sizes["0.tar"]))
    server.pause = 0.1
    process = FORK.Process(target=fetch, args=(f"{server.url}/0.tar",))
    process.start()
    assert server.answering.wait(20)
    wait_for(lambda: [path for path in folder.glob(".*-*") if path.stat().st_size])
    process.kill()
    process.join()
    assert len([*folder.glob(f".*-{sizes['0.tar']}")]) == 1
    server.pause = 0
    assert fetch(f"{server.url}/1.tar") == sizes["1.tar"]
    assert copies(folder) == ["1.tar"]


def test_a_fetch_waits_for_room_that_others_have(server, folder, monkeypatch):
    sizes = fill(server, (30, 30))
    monkeypatch.setenv("ACMIX_CACHE_SIZE", str(sizes["0.tar"]))
    with room.Slot(folder, 1) as slot:
        slot.reserve(1000, 1000)
        with ThreadPoolExecutor(1) as threads:
            fetched = threads.submit(fetch, f"{server.url}/0.tar")
            wait_for(lambda: len([*folder.glob(".*-*")]) == 2)
            time.sleep(0.1)
            assert (server.requests, fetched.done()) == ([], False)
            slot.path.unlink()
            assert fetched.result(20) == sizes["0.tar"]


def test_a_shard_of_unknown_size(server, folder, monkeypatch):
    sizes = fill(server, (30, 30, 40))
    server.unsized = {f"/{name}" for name in sizes}
    monkeypatch.setenv("ACMIX_CACHE_SIZE", str(sizes["0.tar"]))
    for name in ("0.tar", "1.tar"):
        assert fetch(f"{server.url}/{name}") == sizes[name]
    assert copies(folder) == ["1.tar"]
    with pytest.raises(InputError, match=r"2\.tar cannot be fetched.*ACMIX_CACHE_SIZE allows for all; set it higher"):
        cache.open_shard(f"{server.url}/2.tar")


def test_a_server_that_sends_more_than_it_said(server, folder):
    sizes = fill(server, (30,))
    server.understated["/0.tar"] = 5000
    with pytest.raises(InputError, match=f"more than {sizes['0.tar'] - 5000:,} bytes arrive"):
        cache.open_shard(f"{server.url}/0.tar")
    assert copies(folder) == []


def wait_for(condition):
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_shards_are_fetched_ahead(server, folder):
    for name in "ab":
        write_shard(server.folder / f"{name}.tar", [0, 1])
    urls = [f"{server.url}/a.tar", f"{server.url}/b.tar", str(server.folder / "a.tar"), f"{server.url}/none.tar"]
    images = ShardedImages(urls, [2, 2, 2, 2], ["ant", "bee"]).with_classes(("bee", "ant"))
    for shard in (1, 2, 3):
        images.prefetch(shard)
    wait_for(lambda: folder.exists() and copies(folder) == ["b.tar"])
    assert images.read(2)[1] == 1
    assert server.requests == ["/b.tar"]
    with pytest.raises(InputError, match=r"none\.tar cannot be reached"):
        images.read(6)


def test_a_folder_that_cannot_be_written_is_named(monkeypatch, tmp_path, server):
    write_shard(server.folder / "a.tar", [0])
    (tmp_path / "file").touch()
    monkeypatch.setenv("ACMIX_CACHE", str(tmp_path / "file"))
    with pytest.raises(InputError, match=f"cannot be kept in {tmp_path}/file/shards: Not a directory"):
        cache.open_shard(f"{server.url}/a.tar")
    with pytest.raises(InputError, match=f"counts cannot be kept in {tmp_path}/file/counts: Not a directory"):
        scan.scan_shards([f"{server.url}/a.tar"])


def test_counts_are_remembered_until_a_shard_changes(tmp_path, monkeypatch):
    urls = list_pattern(write_three(tmp_path)).urls
    read = []
    whole = scan.read_index
    monkeypatch.setattr(scan, "read_index", lambda file, name, key: read.append(name) or whole(file, name, key))
    assert [count.images for count in scan.scan_shards(urls)] == [3, 2, 4]
    assert len(read) == 3
    write_shard(tmp_path / "train-1.tar", [1, 1, 9])
    counts = scan.scan_shards(urls)
    assert [(count.images, count.highest) for count in counts] == [(3, 2), (3, 9), (4, 2)]
    assert read[3:] == [urls[1]]
    (tmp_path / "train-0.tar").write_bytes(b"no tar")
    write_shard(tmp_path / "train-2.tar", [1])
    with pytest.raises(InputError, match=r"train-0\.tar"):
        scan.scan_shards(urls)
    memory = next((tmp_path / "cache" / "counts").glob("*.json"))
    memory.write_text("{}x")
    with pytest.raises(InputError, match="damaged"):
        scan.scan_shards(urls)


def test_remote_folders_and_patterns(tmp_path):
    write_three(tmp_path)
    memory = fsspec.filesystem("memory")
    for path in tmp_path.glob("*.tar"):
        memory.pipe(f"/set/{path.name}", path.read_bytes())
    memory.pipe("/set/classes.json", b'["ant", "bee", "cat"]')
    (listing,) = list_folder("memory://set").values()
    assert listing.urls == tuple(f"memory:///set/train-{number}.tar" for number in range(3))
    images = open_shards({"train": listing})["train"]
    assert (len(images), images.classes) == (9, ("ant", "bee", "cat"))
    assert images.read(8)[0].getpixel((0, 0)) == (8, 0, 0)
    assert list_pattern("memory://set/train-{0..2}.tar").classes == ("ant", "bee", "cat")
    with pytest.raises(InputError, match="holds no shards"):
        list_folder("memory://none")
