"""Tables of users are read, or refused in one line."""

from pathlib import Path

import pandas as pd
import pytest

from falcon_ray.errors import InputError
from falcon_ray.space.dimension import Scale
from falcon_ray.studies.search.table_file import read_table_file

RATES = """
model: model
family: family
dimensions: {gpu_type: categorical, batch_size: auto}
status: {column: status, ok: [ok], infeasible: [oom]}
metrics: {rate: rps, latency: p99_ms, latency_limit: 50}
price: usd
"""
ROWS = """model,family,gpu_type,batch_size,status,rps,p99_ms,usd
m,f,L4,1,ok,10,20,1.0
m,f,L4,8,ok,40,60,1.0
m,f,A100,1,ok,30,10,2.0
m,f,A100,8,oom,,,2.0
"""
CHAT = """
task: workload
model: model
family: family
dimensions: {n_gpus: log2}
metrics:
  {ttft: ttft, tpot: tpot, output_tokens: 101, concurrency: users, ttft_limit: limit}
price: 3.6
"""
CHAT_ROWS = """workload,model,family,n_gpus,ttft,tpot,users,limit
chat,m,f,1,1000,40,10,2000
chat,m,f,2,500,25,10,2000
code,m,f,1,5000,40,20,2000
code,m,f,2,1000,10,20,2000
"""


def write(directory: Path, rows: str, described: str | None) -> Path:
    path = directory / "table.csv"
    path.write_text(rows, encoding="utf-8")
    if described is not None:
        path.with_suffix(".yaml").write_text(described, encoding="utf-8")
    return path


def test_rates_under_a_limit_are_scored_by_dollar(tmp_path: Path) -> None:
    (task,) = read_table_file(write(tmp_path, ROWS, RATES))
    assert (task.name, task.model, task.family, task.prior) == ("m", "m", "f", None)
    # 10 * 3600 / 1; 60 ms break the limit; 30 * 3600 / 2; out of memory.
    assert task.scores.tolist() == [36_000, 0, 54_000, 0]
    assert [each.scale for each in task.space.dimensions] == [Scale.CATEGORICAL, Scale.LOG2]


def test_a_table_of_tokens_becomes_a_task_per_workload(tmp_path: Path) -> None:
    chat, code = read_table_file(write(tmp_path, CHAT_ROWS, CHAT))
    assert (chat.name, code.name) == ("m chat", "m code")
    # An answer takes 1 + 0.04 * 100 = 5 s, and 10 of them share 3.6 USD/h: 3600 / (5 * 0.36).
    assert chat.scores[0] == pytest.approx(2000)
    # 5,000 ms to the first token break the limit; then 2 s, shared by 20: 3600 / (2 * 0.18).
    assert code.scores.tolist() == pytest.approx([0, 10_000])


def test_parquet_is_read_as_csv_is(tmp_path: Path) -> None:
    path = write(tmp_path, ROWS, RATES)
    pd.read_csv(path).to_parquet(tmp_path / "table.parquet")
    (task,) = read_table_file(tmp_path / "table.parquet")
    assert task.scores.tolist() == [36_000, 0, 54_000, 0]


def test_one_candidate_is_a_task(tmp_path: Path) -> None:
    (task,) = read_table_file(write(tmp_path, "\n".join(ROWS.split("\n")[:2]), RATES))
    assert len(task.space) == 1


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("rps,p99_ms", "rate,p99_ms", "table.csv: the columns rps are missing; it has model, fam"),
        ("m,f,L4,8,ok,40", "m,f,L4,1,ok,40", "m: row 2 repeats a configuration; merge"),
        ("m,f,L4,8,ok,40", "m,f,L4,8,ok,", "rate must be positive and finite, got nan in row 2"),
        ("m,f,L4,8,ok,40", "m,f,L4,8,ok,-4", "rate must be positive and finite, got -4.0 in row 2"),
        ("20,1.0", "20,0", "price must be positive and finite, got 0.0 in row 1"),
        ("m,f,L4,8,ok", "m,f,L4,8,lost", "row 2 has the status 'lost', which is listed neither"),
        ("m,f,L4,8,ok", "m,f,,8,ok", "gpu_type is empty in row 2"),
        ("m,f,L4,8,ok", "m,g,L4,8,ok", "the model m is in more than one family"),
        ("ok", "oom", "m: no candidate is feasible"),
    ],
)
def test_rows_that_do_not_fit_are_refused(tmp_path: Path, old: str, new: str, problem: str) -> None:
    assert old in ROWS
    path = write(tmp_path, ROWS.replace(old, new), RATES)
    with pytest.raises(InputError, match=problem) as caught:
        read_table_file(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("model: model", "", "table.yaml: the file lacks the key 'model'"),
        ("model: model", "model: model\nextra: 1", "unknown key 'extra'; known are task, model"),
        ("auto", "ratio", "batch_size is auto or categorical or linear or log2, not 'ratio'"),
        ("rate: rps, ", "", "metrics must have either a rate, or ttft and tpot"),
        ("rate: rps", "rate: 5", "metrics: rate must be the name of a column, got 5"),
        ("latency_limit: 50", "slo: 50", "metrics has the unknown key 'slo'"),
        (", latency_limit: 50", "", "latency and latency_limit go together"),
        ("ok: [ok]", "ok: ok", "status: ok must be a list of values, got 'ok'"),
        ("price: usd", "price: [1]", r"price must be a number or a column, got \[1\]"),
        ("price: usd", "price: {", "table.yaml is no YAML"),
        ("price: usd", "price: -1", "table.csv: price must be positive and finite, got -1"),
    ],
)
def test_a_description_that_does_not_fit_is_refused(
    tmp_path: Path, old: str, new: str, problem: str
) -> None:
    assert old in RATES
    path = write(tmp_path, ROWS, RATES.replace(old, new))
    with pytest.raises(InputError, match=problem) as caught:
        read_table_file(path)
    assert "\n" not in str(caught.value)


def test_limits_that_differ_within_a_task_ask_for_a_task_column(tmp_path: Path) -> None:
    rows = CHAT_ROWS.replace("chat,m,f,2,500,25,10,2000", "chat,m,f,2,500,25,10,900")
    with pytest.raises(InputError, match="ttft_limit differs within a task: 900 and 2000; name"):
        read_table_file(write(tmp_path, rows, CHAT))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no table .*none\.csv"):
        read_table_file(tmp_path / "none.csv")
    with pytest.raises(InputError, match=r"table\.csv needs table\.yaml beside it"):
        read_table_file(write(tmp_path, ROWS, None))
