"""Turns public originals into the tables that studies read, with their names and columns.

It knows the originals' formats and what was decided about them: which models, limits and assumed
prices. It fetches nothing. The decisions behind three of the tables were written down in words
only: where a rule below had to be inferred, its docstring says so.
"""

import io
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from falcon_ray.errors import InputError

USD_PER_GPU_HOUR: Mapping[str, float] = MappingProxyType(
    {
        "h100_sxm": 6.88,
        "h200_sxm": 7.91,
        "b200_sxm": 14.24,
        "b300_sxm": 17.80,
        "gb200": 15.90,
        "rtx3090": 0.22,
        "4090": 0.44,
        "5090": 0.69,
        "pro6000maxq": 1.69,
        "cpu_i7_12700h": 0.68,
        "cpu_i9_10940x": 0.68,
    }
)
"""Assumed prices; results must hold with others, too."""

_LLM_FAMILIES: Mapping[str, str] = MappingProxyType(
    {
        "Qwen/Qwen3-32B": "qwen3",
        "deepseek-ai/DeepSeek-R1": "deepseek",
        "deepseek-ai/DeepSeek-V3": "deepseek",
        "meta-llama/Llama-3.1-70B": "llama",
        "meta-llama/Llama-3.1-8B-Instruct": "llama",
        "openai/gpt-oss-120b": "gptoss",
    }
)
_NO_LIMIT_MS = 1e9
_SLOS = (  # name, TPOT and TTFT in ms; loosest first
    ("none", _NO_LIMIT_MS, _NO_LIMIT_MS),
    ("tpot50", 50.0, 10_000.0),
    ("tpot20", 20.0, 5_000.0),
)
_LLM_CONFIGURATION = [
    *("model", "family", "isl", "osl", "gpu_type", "backend", "precision"),
    *("n_gpus", "expert_parallel", "attention_dp", "concurrency"),
]
_LEAST_SMALL, _LEAST_MAIN = 15, 41
_LEAST_SETUPS = 15

_VISION_NAME = re.compile(
    r"benchmark-infer-(?P<dtype>\w+)-(?P<layout>nchw|nhwc)-pt(?P<torch>\d+)-(?:cu\d+-)?"
    r"(?P<device>.+?)(?P<dynamo>-dynamo)?\.csv"
)
_VISION_COLUMNS: Mapping[str, str] = MappingProxyType(
    {
        "model": "model",
        "infer_img_size": "image_size",
        "infer_batch_size": "batch",
        "infer_samples_per_sec": "throughput_rps",
        "infer_gmacs": "gmacs",
        "infer_macts": "macts",
        "param_count": "params_millions",
    }
)

_NEUSIGHT_DEVICES: Mapping[str, str] = MappingProxyType(
    {
        "Tesla P100-PCIE-16GB": "nvidia-p100-pcie-16gb",
        "Tesla P4": "nvidia-p4",
        "NVIDIA A100-PCIE-40GB": "nvidia-a100-pcie-40gb",
        "Tesla V100-PCIE-32GB": "nvidia-v100-pcie-32gb",
        "Tesla T4": "nvidia-t4",
        "NVIDIA A100 80GB PCIe": "nvidia-a100-pcie-80gb",
        "NVIDIA L4": "nvidia-l4",
        "NVIDIA H100 80GB HBM3": "nvidia-h100-sxm-80gb",
    }
)
_NEUSIGHT_FILES = re.compile(
    r"/scripts/asplos/data/dataset/(train/collect/\w+/p2\.1\.0/[^/]+|"
    r"test/(bmm|linear|elem|ln|softmax))\.csv$"
)
_MATRIX_DIMS = ("B", "M", "N", "K")
_CONV_DIMS = (
    *("B", "Input_Channel", "Output_Channel", "Kernel_Szie"),  # spelt like this in the original
    *("Input_Size", "Stride", "Padding"),
)
_OPERATOR_DIMS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        **dict.fromkeys(("linear", "bmm"), _MATRIX_DIMS),
        "conv": _CONV_DIMS,
        **dict.fromkeys(("add", "mul", "div", "pow", "relu", "gelu", "tanh"), ("B", "H")),
        **dict.fromkeys(("addu", "mulu", "divu", "powu", "ln", "softmax"), ("B", "H")),
    }
)
_TRANSFORMER_FILE = re.compile(
    r"/scripts/asplos/label/(?P<device>[^/]+)/(?P<model>bert_large|gpt2_large|gpt3_xl)-inf-"
    r"(?P<sequence_length>\d+)-(?P<batch_size>\d+)\.json$"
)


def vision_throughput(files: Sequence[Path]) -> pd.DataFrame:
    """`vision_throughput.parquet` from timm's `results/benchmark-infer-*.csv`.

    Inferred: of every model its smallest image size, where at least 15 set-ups measured it.

    Raises:
        InputError: A file's name or columns are not as expected.
    """
    parts: list[pd.DataFrame] = []
    for file in files:
        match = _VISION_NAME.fullmatch(file.name)
        if match is None:
            raise InputError(
                f"{file} has no name like benchmark-infer-amp-nchw-pt291-cu130-5090.csv"
            )
        device = match["device"].replace("cpu-", "cpu_").replace("rtx4090", "4090")
        part = _columns(pd.read_csv(file), _VISION_COLUMNS, file.name)
        part["device"], part["dtype"], part["layout"] = device, match["dtype"], match["layout"]
        part["torch"], part["dynamo"] = match["torch"], match["dynamo"] is not None
        parts.append(part)
    rows = pd.concat(parts, ignore_index=True).dropna(subset=["throughput_rps", "image_size"])
    by_model = rows.groupby("model")["image_size"]
    rows = rows[rows["image_size"] == by_model.transform("min")]
    rows = rows[rows.groupby("model")["device"].transform("size") >= _LEAST_SETUPS]
    rows["family"] = rows["model"].str.extract(r"^([a-z]+)", expand=False)
    rows["usd_per_hour"] = rows["device"].map(dict(USD_PER_GPU_HOUR))
    rows["batch"] = rows["batch"].astype(float)
    order = [
        *("model", "family", "image_size", "batch", "device", "dtype", "layout", "torch"),
        *("dynamo", "throughput_rps", "usd_per_hour", "gmacs", "macts", "params_millions"),
    ]
    return rows[order].reset_index(drop=True)


def llm_serving(file: Path) -> pd.DataFrame:
    """`llm_serving.parquet` from aiconfigurator's `silicon_sample.csv`.

    Aggregated serving only, the six models of four families; repeats by their medians.

    Raises:
        InputError: The columns are not as expected.
    """
    raw = pd.read_csv(file, low_memory=False)
    names = [
        *("silicon_data_source", "backend", "model_path", "system", "precision", "mode", "isl"),
        *("osl", "batch_size", "tp_size", "pp_size", "attention_dp_size", "moe_ep_size"),
        *("silicon_ttft_ms", "silicon_tpot_ms"),
    ]
    raw = _columns(raw, {name: name for name in names}, file.name)
    model = raw["model_path"].str.replace("/Meta-Llama-", "/Llama-", regex=False)
    raw = raw[(raw["mode"] == "agg") & model.isin(list(_LLM_FAMILIES))]
    data_parallel = raw["attention_dp_size"].fillna(1)
    stated = raw["silicon_data_source"].str.extract(r"silicon_concurrency=(\d+)", expand=False)
    rows = pd.DataFrame(
        {
            "model": model[raw.index],
            "family": model[raw.index].map(dict(_LLM_FAMILIES)),
            "isl": raw["isl"].astype(np.int64),
            "osl": raw["osl"].astype(np.int64),
            "gpu_type": raw["system"],
            "backend": raw["backend"],
            "precision": raw["precision"].astype(object).fillna("default"),
            "n_gpus": raw["tp_size"] * raw["pp_size"].fillna(1) * data_parallel,
            "expert_parallel": raw["moe_ep_size"].fillna(1),
            "attention_dp": (data_parallel > 1).astype(float),
            "concurrency": stated.astype(float).fillna(raw["batch_size"] * data_parallel),
            "ttft_ms": raw["silicon_ttft_ms"],
            "tpot_ms": raw["silicon_tpot_ms"],
        }
    )
    rows["usd_per_hour"] = rows["gpu_type"].map(dict(USD_PER_GPU_HOUR)) * rows["n_gpus"]
    rows = rows.dropna(subset=["ttft_ms", "tpot_ms", "usd_per_hour"])
    latency_s = (rows["ttft_ms"] + rows["tpot_ms"] * (rows["osl"] - 1)) / 1000
    rows["throughput_rps"] = rows["concurrency"] / latency_s
    rows["requests_per_dollar"] = rows["throughput_rps"] / (rows["usd_per_hour"] / 3600)
    repeats = rows.groupby(_LLM_CONFIGURATION)
    medians = repeats.median(numeric_only=True)
    medians["n_repeats"] = repeats.size()
    medians["requests_per_dollar_min"] = repeats["requests_per_dollar"].min()
    medians["requests_per_dollar_max"] = repeats["requests_per_dollar"].max()
    workloads = medians.reset_index().groupby(["model", "isl", "osl"])
    tasks = [slo_tasks(rows) for _, rows in workloads if len(rows) >= _LEAST_SMALL]
    if not tasks:
        raise InputError(f"{file.name} holds none of the models {sorted(_LLM_FAMILIES)}")
    return pd.concat([each for part in tasks for each in part], ignore_index=True)


def slo_tasks(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """The tasks of one workload: without SLO, and under each SLO that changes the best choice.

    An SLO makes a task where its best row is not that of the next looser one. Inferred, but it
    gives exactly the 76 tasks of the table.

    Args:
        rows: Configurations of one model and workload, with a `RangeIndex` or any unique index.
    """
    first = rows.iloc[0]
    is_main = len(rows) >= _LEAST_MAIN
    tasks: list[pd.DataFrame] = []
    best: object = None
    for name, tpot_ms, ttft_ms in _SLOS:
        feasible = (rows["tpot_ms"] <= tpot_ms) & (rows["ttft_ms"] <= ttft_ms)
        if not feasible.any():
            continue
        best_now = rows.loc[feasible, "requests_per_dollar"].idxmax()
        if best_now == best:
            continue
        best = best_now
        workload = f"{first['model']}|{first['isl']}x{first['osl']}"
        tasks.append(
            rows.assign(
                set="main" if is_main else "small",
                task=f"{'a' if is_main else 'a2'}|{workload}|{name}",
                slo=name,
                slo_tpot_ms=tpot_ms,
                slo_ttft_ms=ttft_ms,
                feasible=feasible,
            )
        )
    return tasks


def operator_latency(archive: Path) -> pd.DataFrame:
    """The float32 rows of `operator_latency.parquet` from an archive of NeuSight.

    Raises:
        InputError: A file's columns are not as expected, or the archive holds none.
    """
    parts: list[pd.DataFrame] = []
    with zipfile.ZipFile(archive) as contents:
        for name in sorted(filter(_NEUSIGHT_FILES.search, contents.namelist())):
            raw = pd.read_csv(io.BytesIO(contents.read(name)))
            known = _columns(raw, {c: c for c in ("OPName", "Latency", "Device")}, name)
            for op, dims in _OPERATOR_DIMS.items():
                mine = (known["OPName"] == op) & known["Device"].isin(list(_NEUSIGHT_DEVICES))
                if mine.any():
                    sizes = _columns(raw[mine], {each: each for each in dims}, name)
                    parts.append(_operator_rows(op, known[mine], sizes))
    if not parts:
        raise InputError(f"{archive} holds no operator timings of NeuSight")
    return pd.concat(parts, ignore_index=True)


def transformer_latency(archive: Path) -> pd.DataFrame:
    """`transformer_latency.csv` from an archive of NeuSight.

    Raises:
        InputError: The archive holds no such measurements.
    """
    rows: list[dict[str, Any]] = []
    with zipfile.ZipFile(archive) as contents:
        for name in sorted(contents.namelist()):
            match = _TRANSFORMER_FILE.search(name)
            if match is None:
                continue
            rows.append(
                {
                    "device": match["device"],
                    "model": match["model"],
                    "sequence_length": int(match["sequence_length"]),
                    "batch_size": int(match["batch_size"]),
                    "latency_ms": json.loads(contents.read(name))["e2e_latency"],
                }
            )
    if not rows:
        raise InputError(f"{archive} holds no end-to-end measurements of NeuSight")
    return pd.DataFrame(rows)


def _operator_rows(op: str, known: pd.DataFrame, sizes: pd.DataFrame) -> pd.DataFrame:
    """Rows of one operator; latencies of the original are in milliseconds."""
    return pd.DataFrame(
        {
            "family": "gemm" if op == "linear" else op,
            "op": op,
            "device": known["Device"].map(dict(_NEUSIGHT_DEVICES)).to_numpy(),
            "dtype": "float32",
            "dims": list(sizes.to_numpy(dtype=np.int32)),
            "share": np.float32(1.0),
            "latency_us": (1000.0 * known["Latency"]).to_numpy(dtype=np.float32),
            "n": np.int16(1),
            "rel_sd": np.float32("nan"),
            "source": "neusight-asplos25",
        }
    )


def _columns(raw: pd.DataFrame, names: Mapping[str, str], file: str) -> pd.DataFrame:
    missing = [name for name in names if name not in raw.columns]
    if missing:
        raise InputError(f"{file} has no columns {missing}; its format has changed")
    return raw[list(names)].rename(columns=dict(names))
