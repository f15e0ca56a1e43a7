"""Fetches the public originals of the tables that studies read, and rebuilds the tables.

Every source has a repository, a commit and a licence. Nobody published hashes of these files: the
first download of each is trusted and its SHA-256 written into a lock file; later downloads must
equal it. Archives must also say themselves that they hold the expected commit. The module does not
print; it reports lines to whoever asked for them.
"""

import hashlib
import http.client
import json
import os
import shutil
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import IO, TypeAlias

import pandas as pd

from falcon_ray.errors import InputError
from falcon_ray.studies import public_conversion as conversion

Opener: TypeAlias = Callable[[str], AbstractContextManager[IO[bytes]]]
"""Opens a URL for reading; raises OSError where it cannot be reached."""
Report: TypeAlias = Callable[[str], object]

TIMEOUT_S = 60.0
ATTEMPTS = 3
LOCK_FILE = "sha256.json"

_NETWORK_FAULTS = (
    *(urllib.error.URLError, http.client.HTTPException),
    *(ConnectionError, TimeoutError, ssl.SSLError),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Files of one public repository at one commit.

    Attributes:
        name: Folder in the cache.
        repository: Owner and name on GitHub.
        commit: Abbreviated or full.
        licence: Of these files.
        files: Names; empty to fetch the whole archive.
        folders: Where the repository may hold them, in the order in which they are tried.
        tables: What is rebuilt from them.
    """

    name: str
    repository: str
    commit: str
    licence: str
    files: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()

    def downloads(self) -> dict[str, tuple[str, ...]]:
        """By a file's name in the cache the URLs that may hold it."""
        if not self.files:
            url = f"https://codeload.github.com/{self.repository}/zip/{self.commit}"
            return {f"{self.commit}.zip": (url,)}
        root = f"https://raw.githubusercontent.com/{self.repository}/{self.commit}"
        return {
            file: tuple(f"{root}/{folder}/{file}" for folder in self.folders) for file in self.files
        }


def _with_dynamo(setup: str) -> tuple[str, str]:
    return setup, f"{setup}-dynamo"


def _vision_files() -> tuple[str, ...]:
    setups = (
        *_with_dynamo("amp-nchw-pt240-cu124-rtx4090"),
        "amp-nhwc-pt240-cu124-rtx4090",
        *_with_dynamo("amp-nchw-pt291-cu128-4090"),
        *_with_dynamo("amp-nchw-pt291-cu130-5090"),
        *_with_dynamo("amp-nchw-pt291-cu130-pro6000maxq"),
        "amp_bf16-nchw-pt291-cu130-pro6000maxq-dynamo",
        "bf16-nchw-pt291-cu130-pro6000maxq-dynamo",
        "fp32-nchw-pt240-cpu-i7_12700h-dynamo",
        "fp32-nchw-pt221-cpu-i9_10940x-dynamo",
        "fp32-nchw-pt240-cpu-i9_10940x-dynamo",
        *(
            f"amp-{layout}-{version}-rtx3090"
            for layout in ("nchw", "nhwc")
            for version in ("pt113-cu117", "pt210-cu121", "pt240-cu124")
        ),
    )
    return tuple(f"benchmark-infer-{setup}.csv" for setup in setups)


SOURCES = (
    Source(
        name="pytorch-image-models",
        repository="huggingface/pytorch-image-models",
        commit="aa4b585",
        licence="Apache-2.0",
        files=_vision_files(),
        folders=("results",),
        tables=("vision_throughput.parquet",),
    ),
    Source(
        name="aiconfigurator",
        repository="ai-dynamo/aiconfigurator",
        commit="095f58a",
        licence="Apache-2.0",
        files=("silicon_sample.csv",),
        folders=("src/aiconfigurator/systems", "aic-core/src/aiconfigurator_core/systems"),
        tables=("llm_serving.parquet",),
    ),
    Source(
        name="NeuSight",
        repository="sitar-lab/NeuSight",
        commit="6945927",
        licence="MIT, (c) 2025 Georgia Tech and Microsoft",
        tables=("operator_latency.parquet", "transformer_latency.csv"),
    ),
    Source(name="Falcon", repository="dos-lab/Falcon", commit="21b72b9", licence="Apache-2.0"),
)

NOT_REBUILT: Mapping[str, str] = MappingProxyType(
    {
        "operator_latency.parquet, bf16, fp8 and fp4 rows": "made from aiconfigurator's gemm "
        "tables, which its repository keeps in Git LFS, one for every version of an engine",
        "llm_large_space.parquet": "made by aiconfigurator 0.12 from its operator tables",
        "llm_architectures.csv": "made by hand from the models' published config.json",
        "vision_operators.parquet": "made by tracing the public model definitions of timm",
        "devices.csv, device_names.csv": "made from aiconfigurator's systems/ and NeuSight's "
        "device_configs/; falcon_ray/data/gpus.csv holds the facts that falcon_ray uses",
        "paper_tables.parquet": "made from the tables in Falcon's archive, which is kept as it is",
    }
)
"""What no original holds in a form that this module converts, and how it was made."""


def cache_directory(environment: Mapping[str, str] | None = None) -> Path:
    """Where originals and tables are kept: below XDG_CACHE_HOME, else below ~/.cache."""
    variables = os.environ if environment is None else environment
    base = variables.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "falcon_ray" / "public"


def fetch_all(
    directory: Path,
    *,
    report: Report,
    sources: Sequence[Source] = SOURCES,
    opener: Opener | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> Path:
    """Fetch the originals of all sources and rebuild the tables.

    Args:
        directory: Cache; originals go into a folder per source, tables into "tables".
        report: Called with every line that a user should read.
        sources: What to fetch.
        opener: How URLs are opened; https only where left out.
        sleep: Waits between attempts.

    Returns:
        The directory of the tables, for FALCON_RAY_DATA_DIR.

    Raises:
        InputError: There is no connection, a file is not the one that was locked, an original's
            format has changed, or the cache cannot be written.
    """
    tables = directory / "tables"
    try:
        tables.mkdir(parents=True, exist_ok=True)
        for source in sources:
            report(
                f"{source.name}: github.com/{source.repository} at {source.commit}, licence "
                f"{source.licence}"
            )
            files = fetch(source, directory, opener=opener or open_https, sleep=sleep)
            report(f"  {len(files)} file(s) in {directory / source.name}")
            for table in source.tables:
                rows = _rebuild(table, files, tables / table)
                report(f"  {table}: {rows:,} rows")
    except OSError as error:
        raise InputError(f"cannot write to {directory}: {error.strerror or error}") from error
    for table, why in NOT_REBUILT.items():
        report(f"not fetched: {table}: {why}")
    return tables


def fetch(
    source: Source,
    directory: Path,
    *,
    opener: Opener,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Path]:
    """Fetch what the cache does not have of one source, and check all of it.

    Raises:
        InputError: There is no connection, or a file is not the one that was locked.
        OSError: The cache cannot be written.
    """
    folder = directory / source.name
    folder.mkdir(parents=True, exist_ok=True)
    lock_path = directory / LOCK_FILE
    locked = _read_lock(lock_path)
    files: list[Path] = []
    for name, urls in source.downloads().items():
        path = folder / name
        if not path.is_file():
            _download(urls, path, opener=opener, sleep=sleep)
        try:
            if not source.files:
                _check_commit(path, source.commit)
            _check_lock(locked, path, lock_path)
        except InputError:
            path.unlink()  # the next run fetches it again
            raise
        files.append(path)
    partial_path = lock_path.with_suffix(".part")
    partial_path.write_text(json.dumps(locked, indent=2, sort_keys=True) + "\n", "utf-8")
    partial_path.replace(lock_path)
    return files


def open_https(url: str) -> AbstractContextManager[IO[bytes]]:
    """Open a URL by https; anything else is refused, redirects to it included.

    Raises:
        OSError: It cannot be reached.
    """
    director = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        director.add_handler(handler)
    return director.open(url, timeout=TIMEOUT_S)


def _download(
    urls: Sequence[str], path: Path, *, opener: Opener, sleep: Callable[[float], None]
) -> None:
    """Try every URL in turn, each as often as its server or the network fails."""
    for url in urls:
        if _is_downloaded(url, path, opener=opener, sleep=sleep):
            return
    raise InputError(f"{' and '.join(urls)} do not exist; the repository has changed")


def _is_downloaded(url: str, path: Path, *, opener: Opener, sleep: Callable[[float], None]) -> bool:
    """Whether the file is there now; False where the server says that it has none."""
    attempt = 1
    while True:
        try:
            _download_once(url, path, opener)
            return True
        except _NETWORK_FAULTS as error:
            if isinstance(error, urllib.error.HTTPError) and error.code in (404, 410):
                return False
            if attempt == ATTEMPTS:
                host = urllib.parse.urlsplit(url).netloc
                why = error.reason if isinstance(error, urllib.error.URLError) else error
                raise InputError(f"no connection to {host} ({why}); check the network") from error
        sleep(2.0**attempt)
        attempt += 1


def _download_once(url: str, path: Path, opener: Opener) -> None:
    partial_path = path.with_name(path.name + ".part")
    with opener(url) as response, partial_path.open("wb") as file:
        shutil.copyfileobj(response, file)
        # http.client ends a read by size quietly when the connection breaks; it counts what is due.
        if getattr(response, "length", None):
            raise ConnectionError("the connection broke")
    partial_path.replace(path)


def _check_commit(archive: Path, commit: str) -> None:
    """`git archive` writes the full commit into the zip file's comment."""
    try:
        with zipfile.ZipFile(archive) as contents:
            found = contents.comment.decode("ascii", "replace")
    except zipfile.BadZipFile as error:
        raise InputError(f"{archive.name} is no zip file: {error}; run the script again") from error
    if not found.startswith(commit):
        raise InputError(f"{archive.name} holds commit {found or 'unknown'}, expected {commit}")


def _check_lock(locked: dict[str, str], path: Path, lock_path: Path) -> None:
    name = f"{path.parent.name}/{path.name}"
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if locked.setdefault(name, found) != found:
        raise InputError(
            f"{name} does not hold what it first did: SHA-256 {found}, expected {locked[name]}; if "
            f"you trust the change, remove its line from {lock_path}"
        )


def _read_lock(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} is damaged: {error}; remove it to start anew") from error


def _rebuild(table: str, files: Sequence[Path], path: Path) -> int:
    makers: Mapping[str, Callable[[], pd.DataFrame]] = {
        "vision_throughput.parquet": partial(conversion.vision_throughput, files),
        "llm_serving.parquet": partial(conversion.llm_serving, files[0]),
        "operator_latency.parquet": partial(conversion.operator_latency, files[0]),
        "transformer_latency.csv": partial(conversion.transformer_latency, files[0]),
    }
    try:
        rows = makers[table]()
    except InputError:
        raise
    except (ValueError, KeyError) as error:  # what pandas and json say of other formats
        raise InputError(f"{table} cannot be rebuilt from {files[0]}: {error}") from error
    if path.suffix == ".csv":
        rows.to_csv(path, index=False)
    else:
        rows.to_parquet(path, index=False)
    return len(rows)
