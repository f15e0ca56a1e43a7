import io
import json
import threading
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from email.message import Message
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO

import pandas as pd
import pytest

from falcon_ray.errors import InputError
from falcon_ray.studies.public_sources import (
    LOCK_FILE,
    NOT_REBUILT,
    SOURCES,
    Source,
    cache_directory,
    fetch,
    fetch_all,
    open_https,
)

ONE_FILE = Source(
    name="sample",
    repository="owner/project",
    commit="abc1234",
    licence="MIT",
    files=("a.csv",),
    folders=("old", "new"),
)
OLD = "https://raw.githubusercontent.com/owner/project/abc1234/old/a.csv"
NEW = "https://raw.githubusercontent.com/owner/project/abc1234/new/a.csv"


class Web:
    """URLs with what each answers in turn: bytes or an error; the last one again and again."""

    def __init__(self, answers: Mapping[str, list[bytes | Exception]]) -> None:
        self.answers = {url: list(each) for url, each in answers.items()}
        self.asked: list[str] = []
        self.waited_s: list[float] = []

    @contextmanager
    def __call__(self, url: str) -> Iterator[IO[bytes]]:
        self.asked.append(url)
        if url not in self.answers:
            raise urllib.error.HTTPError(url, 404, "Not Found", Message(), None)
        queue = self.answers[url]
        answer = queue.pop(0) if len(queue) > 1 else queue[0]
        if isinstance(answer, Exception):
            raise answer
        yield io.BytesIO(answer)


def fetched(web: Web, directory: Path, source: Source = ONE_FILE) -> list[Path]:
    return fetch(source, directory, opener=web, sleep=web.waited_s.append)


def archive(files: Mapping[str, str], *, commit: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as contents:
        contents.comment = commit.encode()
        for name, text in files.items():
            contents.writestr(name, text)
    return buffer.getvalue()


def test_file_is_kept_and_its_hash_is_locked(tmp_path: Path) -> None:
    web = Web({OLD: [b"x"]})
    assert [path.read_bytes() for path in fetched(web, tmp_path)] == [b"x"]
    # sha256 of the one byte "x", as `printf x | sha256sum` prints it.
    expected = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    assert json.loads((tmp_path / LOCK_FILE).read_text()) == {"sample/a.csv": expected}


def test_what_the_cache_has_is_not_fetched_again(tmp_path: Path) -> None:
    web = Web({OLD: [b"x"]})
    assert fetched(web, tmp_path) == fetched(web, tmp_path)
    assert web.asked == [OLD]


def test_a_file_that_moved_is_found_in_the_next_folder(tmp_path: Path) -> None:
    web = Web({NEW: [b"x"]})
    fetched(web, tmp_path)
    assert web.asked == [OLD, NEW]


def test_a_file_that_is_nowhere_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"{OLD} and {NEW} do not exist"):
        fetched(Web({}), tmp_path)


def test_a_passing_fault_is_tried_again(tmp_path: Path) -> None:
    busy = urllib.error.HTTPError(OLD, 503, "Busy", Message(), None)
    web = Web({OLD: [busy, ConnectionResetError("reset"), b"x"]})
    fetched(web, tmp_path)
    assert len(web.asked) == 3
    assert web.waited_s == [2.0, 4.0]


def test_no_network_is_said_in_one_line_with_what_to_do(tmp_path: Path) -> None:
    web = Web({OLD: [urllib.error.URLError("Name or service not known")]})
    with pytest.raises(InputError) as caught:
        fetched(web, tmp_path)
    assert str(caught.value) == (
        "no connection to raw.githubusercontent.com (Name or service not known); check the network"
    )
    assert caught.value.exit_code == 2
    assert not (tmp_path / "sample" / "a.csv").exists()


def test_a_file_that_changed_since_it_was_locked_is_refused_and_dropped(tmp_path: Path) -> None:
    (path,) = fetched(Web({OLD: [b"x"]}), tmp_path)
    path.unlink()
    with pytest.raises(InputError, match=r"sample/a\.csv does not hold what it first did"):
        fetched(Web({OLD: [b"y"]}), tmp_path)
    assert not path.exists()


def test_an_archive_of_another_commit_is_refused(tmp_path: Path) -> None:
    source = Source(name="zip", repository="owner/project", commit="abc1234", licence="MIT")
    url = "https://codeload.github.com/owner/project/zip/abc1234"
    fetched(Web({url: [archive({}, commit="abc1234" + "0" * 33)]}), tmp_path / "good", source)
    with pytest.raises(InputError, match="holds commit fffffff, expected abc1234"):
        fetched(Web({url: [archive({}, commit="fffffff")]}), tmp_path / "other", source)
    with pytest.raises(InputError, match="is no zip file"):
        fetched(Web({url: [b"<html>"]}), tmp_path / "page", source)


def test_a_damaged_lock_file_is_named(tmp_path: Path) -> None:
    (tmp_path / LOCK_FILE).write_text("{")
    with pytest.raises(InputError, match=rf"{LOCK_FILE} is damaged"):
        fetched(Web({OLD: [b"x"]}), tmp_path)


def test_only_https_is_opened() -> None:
    with pytest.raises(urllib.error.URLError, match="unknown url type: http"):
        open_https("http://127.0.0.1:9/a.csv")


def test_a_connection_that_breaks_leaves_no_file(tmp_path: Path) -> None:
    class Short(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "10")
            self.end_headers()
            self.wfile.write(b"12345")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with served(Short) as opener, pytest.raises(InputError, match="no connection to"):
        fetch(ONE_FILE, tmp_path, opener=opener, sleep=lambda _: None)
    assert not (tmp_path / "sample" / "a.csv").exists()


@contextmanager
def served(
    handler: Callable[..., SimpleHTTPRequestHandler],
) -> Iterator[Callable[[str], AbstractContextManager[IO[bytes]]]]:
    """A loopback server that stands for every host."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    root = f"http://127.0.0.1:{server.server_address[1]}/"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        yield lambda url: opener.open(root + url.removeprefix("https://"), timeout=5)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_tables_are_rebuilt_from_what_a_server_holds(tmp_path: Path) -> None:
    timm, host = SOURCES[0], tmp_path / "host"
    text = (
        "model,infer_img_size,infer_samples_per_sec,infer_step_time,infer_batch_size,param_count,"
        "infer_gmacs,infer_macts\nnet_a,224,100.5,10.0,64,5.5,0.2,2.5\n"
    )
    folder = host / "raw.githubusercontent.com" / timm.repository / timm.commit / "results"
    folder.mkdir(parents=True)
    for file in timm.files:
        (folder / file).write_text(text)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    lines: list[str] = []
    with served(partial(Quiet, directory=str(host))) as opener:
        tables = fetch_all(tmp_path / "cache", report=lines.append, sources=(timm,), opener=opener)
    assert len(pd.read_parquet(tables / "vision_throughput.parquet")) == 20  # one a set-up
    assert any("licence Apache-2.0" in line for line in lines)
    for table in NOT_REBUILT:
        assert any(line.startswith(f"not fetched: {table}: made ") for line in lines)


def test_an_original_in_another_format_is_said_in_one_line(tmp_path: Path) -> None:
    source = Source(
        name="sample",
        repository="owner/project",
        commit="abc1234",
        licence="MIT",
        files=("a.csv",),
        folders=("old",),
        tables=("llm_serving.parquet",),
    )
    for text, message in ((b"x,y\n1,2\n", "has no columns"), (b"", "cannot be rebuilt from")):
        with pytest.raises(InputError, match=message):
            fetch_all(
                tmp_path / message,
                report=lambda _: None,
                sources=(source,),
                opener=Web({OLD: [text]}),
            )


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write to"):
        fetch_all(tmp_path / "file", report=lambda _: None, sources=())


def test_cache_follows_xdg() -> None:
    assert cache_directory({"XDG_CACHE_HOME": "/c"}) == Path("/c/falcon_ray/public")
    assert cache_directory({}) == Path.home() / ".cache" / "falcon_ray" / "public"


def test_every_source_says_its_commit_and_licence() -> None:
    assert all(source.commit and source.licence for source in SOURCES)
    assert {url for s in SOURCES for urls in s.downloads().values() for url in urls}
    assert all(
        url.startswith("https://") and source.commit in url
        for source in SOURCES
        for urls in source.downloads().values()
        for url in urls
    )
