import os
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest

from falcon_ray.errors import InputError
from falcon_ray.studies.public_conversion import (
    llm_serving,
    operator_latency,
    slo_tasks,
    transformer_latency,
    vision_throughput,
)

DATA_DIR = Path(
    os.environ.get(
        "FALCON_RAY_DATA_DIR", Path(__file__).resolve().parents[3].parent / "shared" / "data"
    )
)
VISION_HEADER = (
    "model,infer_img_size,infer_samples_per_sec,infer_step_time,infer_batch_size,param_count,"
    "infer_gmacs,infer_macts"
)
LLM_HEADER = (
    "id,silicon_data_source,backend,backend_version,model_path,system,precision,mode,isl,osl,"
    "batch_size,tp_size,pp_size,attention_dp_size,moe_tp_size,moe_ep_size,silicon_ttft_ms,"
    "silicon_tpot_ms"
)
MATRIX_HEADER = "OPName,Latency,Device,Kernel Name,B,M,N,K"
VECTOR_HEADER = "OPName,Latency,Device,Kernel Name,B,H"
CONV_HEADER = (
    "OPName,Latency,Device,B,Input_Channel,Output_Channel,Kernel_Szie,Input_Size,Stride,Padding"
)
DATASET = "NeuSight-6945927/scripts/asplos/data/dataset"
LABEL = "NeuSight-6945927/scripts/asplos/label"


def vision_files(folder: Path, names: list[str], rows: list[str]) -> list[Path]:
    files = [folder / f"benchmark-infer-{name}.csv" for name in names]
    for file in files:
        file.write_text("\n".join([VISION_HEADER, *rows]) + "\n")
    return files


def archive(path: Path, files: Mapping[str, list[str]]) -> Path:
    with zipfile.ZipFile(path, "w") as contents:
        for name, lines in files.items():
            contents.writestr(name, "\n".join(lines) + "\n")
    return path


def llm_rows(*, n: int) -> list[str]:
    """Rows of one workload at concurrencies 1 to n on two GPUs."""
    return [
        f"id,x; silicon_concurrency={c}; y,vllm,1,Qwen/Qwen3-32B,h100_sxm,,agg,1024,101,7,2,1,1,2,"
        "1,1000.0,10.0"
        for c in range(1, n + 1)
    ]


def test_vision_file_names_say_the_set_up(tmp_path: Path) -> None:
    setups = [f"amp-nchw-pt{torch}-cu124-rtx3090" for torch in range(100, 112)]
    setups += ["amp-nhwc-pt240-cu124-rtx4090", "amp_bf16-nchw-pt291-cu130-pro6000maxq-dynamo"]
    setups += ["fp32-nchw-pt240-cpu-i7_12700h-dynamo"]
    rows = vision_throughput(vision_files(tmp_path, setups, ["net_a1,224,50,10,64,5.5,0.2,2.5"]))
    columns = ["device", "dtype", "layout", "torch", "dynamo", "usd_per_hour"]
    assert rows[columns].tail(3).values.tolist() == [
        ["4090", "amp", "nhwc", "240", False, 0.44],
        ["pro6000maxq", "amp_bf16", "nchw", "291", True, 1.69],
        ["cpu_i7_12700h", "fp32", "nchw", "240", True, 0.68],
    ]
    first = rows.iloc[0]
    assert (first["family"], first["image_size"], first["batch"]) == ("net", 224, 64.0)
    assert (first["throughput_rps"], first["gmacs"], first["params_millions"]) == (50, 0.2, 5.5)


def test_vision_keeps_the_smallest_image_of_models_with_fifteen_set_ups(tmp_path: Path) -> None:
    setups = [f"amp-nchw-pt{torch}-cu124-rtx3090" for torch in range(100, 115)]
    both = ["a,224,50,10,64,5,0.2,2", "a,288,30,10,64,5,0.4,4"]
    files = vision_files(tmp_path, setups[:14], [*both, "rare,224,9,9,9,9,9,9"])
    files += vision_files(tmp_path, setups[14:], both)
    rows = vision_throughput(files)
    assert len(rows) == 15
    assert set(zip(rows["model"], rows["image_size"], strict=True)) == {("a", 224)}


def test_vision_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    other = tmp_path / "results-imagenet.csv"
    other.write_text("x\n")
    with pytest.raises(InputError, match="has no name like"):
        vision_throughput([other])
    (file,) = vision_files(tmp_path, ["amp-nchw-pt291-cu130-5090"], [])
    file.write_text("model,speed\n")
    with pytest.raises(InputError, match="has no columns"):
        vision_throughput([file])


def test_llm_score_follows_from_latencies_and_price(tmp_path: Path) -> None:
    file = tmp_path / "silicon_sample.csv"
    file.write_text("\n".join([LLM_HEADER, *llm_rows(n=15)]) + "\n")
    row = llm_serving(file).query("slo == 'none' and concurrency == 4").iloc[0]
    # A request takes 1 s + 100 tokens of 10 ms = 2 s; four at once: 2 a second; two GPUs of 6.88.
    assert row["throughput_rps"] == pytest.approx(2.0)
    assert row["usd_per_hour"] == pytest.approx(13.76)
    assert row["requests_per_dollar"] == pytest.approx(2.0 * 3600 / 13.76)
    assert (row["set"], row["task"]) == ("small", "a2|Qwen/Qwen3-32B|1024x101|none")
    assert (row["precision"], row["n_gpus"], row["attention_dp"]) == ("default", 2.0, 0.0)


def test_llm_gpus_multiply_and_repeats_become_medians(tmp_path: Path) -> None:
    rows = llm_rows(n=15)
    parallel = "id,no concurrency,trtllm,1,Qwen/Qwen3-32B,b200_sxm,fp4,agg,1024,101,8,2,1,4,1,8,"
    rows += [f"{parallel}100.0,10.0", f"{parallel}300.0,10.0"]
    rows.append(rows[0].replace(",agg,", ",disagg,"))
    rows.append(rows[0].replace("Qwen/Qwen3-32B", "other/model"))
    file = tmp_path / "silicon_sample.csv"
    file.write_text("\n".join([LLM_HEADER, *rows]) + "\n")
    table = llm_serving(file)
    assert len(table[table["slo"] == "none"]) == 16
    row = table[table["gpu_type"] == "b200_sxm"].iloc[0]
    # 2 tensor-parallel x 4 data-parallel GPUs; 8 requests in each of 4 replicas of attention.
    assert (row["n_gpus"], row["concurrency"], row["attention_dp"]) == (8.0, 32.0, 1.0)
    assert (row["expert_parallel"], row["ttft_ms"], row["n_repeats"]) == (8.0, 200.0, 2)
    assert row["requests_per_dollar_min"] < row["requests_per_dollar"]


def test_llm_workloads_of_few_configurations_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "silicon_sample.csv"
    file.write_text("\n".join([LLM_HEADER, *llm_rows(n=14)]) + "\n")
    with pytest.raises(InputError, match="holds none of the models"):
        llm_serving(file)


def test_an_slo_makes_a_task_only_where_it_changes_the_best_choice() -> None:
    rows = pd.DataFrame(
        {
            "model": "m",
            "isl": 10,
            "osl": 20,
            "ttft_ms": 100.0,
            "tpot_ms": [60.0, 30.0, 10.0],
            "requests_per_dollar": [3.0, 2.0, 1.0],
        }
    )
    assert [t["slo"].iloc[0] for t in slo_tasks(rows)] == ["none", "tpot50", "tpot20"]
    same_best = rows.assign(requests_per_dollar=[1.0, 2.0, 3.0])
    assert [t["slo"].iloc[0] for t in slo_tasks(same_best)] == ["none"]
    impossible = rows.assign(tpot_ms=60.0)
    assert [t["slo"].iloc[0] for t in slo_tasks(impossible)] == ["none"]


@pytest.mark.skipif(
    not (DATA_DIR / "llm_serving.parquet").is_file(),
    reason=f"no llm_serving.parquet in {DATA_DIR}; scripts/fetch_data brings it",
)
def test_slo_rule_gives_exactly_the_tasks_of_the_table() -> None:
    table = pd.read_parquet(DATA_DIR / "llm_serving.parquet")
    free = table[table["slo"] == "none"]
    made = pd.concat([t for _, rows in free.groupby("task") for t in slo_tasks(rows)])
    counted = ["set", "task", "feasible"]
    assert made.groupby(counted).size().to_dict() == table.groupby(counted).size().to_dict()


def test_operators_get_their_dimensions_and_microseconds(tmp_path: Path) -> None:
    collect = f"{DATASET}/train/collect"
    path = archive(
        tmp_path / "neusight.zip",
        {
            f"{collect}/add/p2.1.0/Tesla T4.csv": [VECTOR_HEADER, "add,0.025,Tesla T4,k,127,168"],
            f"{collect}/conv/p2.1.0/NVIDIA A100 80GB PCIe.csv": [
                CONV_HEADER,
                "conv,2.5,NVIDIA A100 80GB PCIe,38,893,326,3,5,1,1",
            ],
            f"{DATASET}/test/linear.csv": [
                MATRIX_HEADER,
                "linear,1.5,NVIDIA H100 80GB HBM3,k,1,1024,2560,2560",
                "linear,1.5,AMD Instinct MI100,k,1,1024,2560,2560",
            ],
            f"{DATASET}/test/habitat.csv": ["other"],
            f"{DATASET}/train/collect/add.csv": ["other"],
        },
    )
    rows = operator_latency(path)
    columns = ["family", "op", "device", "dtype"]
    assert rows[columns].values.tolist() == [
        ["gemm", "linear", "nvidia-h100-sxm-80gb", "float32"],
        ["add", "add", "nvidia-t4", "float32"],
        ["conv", "conv", "nvidia-a100-pcie-80gb", "float32"],
    ]
    assert [list(each) for each in rows["dims"]] == [
        [1, 1024, 2560, 2560],
        [127, 168],
        [38, 893, 326, 3, 5, 1, 1],
    ]
    assert rows["latency_us"].tolist() == pytest.approx([1500.0, 25.0, 2500.0])  # from ms


def test_transformers_are_named_by_their_files(tmp_path: Path) -> None:
    path = archive(
        tmp_path / "neusight.zip",
        {
            f"{LABEL}/AMD_Instinct_MI100/bert_large-inf-512-16.json": ['{"e2e_latency": 261.5}'],
            f"{LABEL}/Tesla_T4/gpt2_large-inf-1024-4-fusion.json": ['{"e2e_latency": 1}'],
            f"{LABEL}/Tesla_T4/gpt2_large-train-1024-4.json": ['{"e2e_latency": 1}'],
            f"{LABEL}/Tesla_T4/opt_13-inf-2048-2.json": ['{"e2e_latency": 1}'],
        },
    )
    assert transformer_latency(path).values.tolist() == [
        ["AMD_Instinct_MI100", "bert_large", 512, 16, 261.5]
    ]


def test_an_archive_without_measurements_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "empty.zip", {"README.md": [""]})
    with pytest.raises(InputError, match="holds no operator timings"):
        operator_latency(path)
    with pytest.raises(InputError, match="holds no end-to-end measurements"):
        transformer_latency(path)
