"""How good the first guess is that knowledge makes about serving a language model.

The module ranks configurations by predicted requests per dollar and compares with what was
measured. Some tasks stand on few deployments that nothing in a configuration tells apart, an
engine's cap on requests for instance, so a mean regret moves by steps of one task.
"""

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from scipy import stats

from falcon_ray.knowledge.llm.architecture import LlmArchitecture
from falcon_ray.knowledge.llm.deployments import LlmGpu
from falcon_ray.knowledge.llm.measured import CONFIGURATION_COLUMNS, MeasuredLlms
from falcon_ray.knowledge.llm.posterior import CENTRES, chosen_evidence, held_out_residuals
from falcon_ray.studies.figure import Figure

_N_DRAWS = 8
_MOVE = float(np.log(1.4))  # of the log of an expectation, at most, either way
_OTHER_PRICES: Mapping[str, Callable[[pd.DataFrame], pd.Series]] = {
    "one price for every GPU": lambda rows: rows["n_gpus"],
    "Blackwell at 60 %": lambda rows: (
        rows["usd_per_hour"] * np.where(rows["gpu_type"].isin(["B200", "B300", "GB200"]), 0.6, 1.0)
    ),
}


def orders(tasks: pd.DataFrame) -> Figure:
    """Rank correlation of predicted and measured requests per dollar, mean over tasks."""
    rates = _rank_correlations(tasks)
    values = np.array(list(rates.values()))
    main = np.array([part == "main" for part, _ in rates])
    worst = min(rates, key=rates.__getitem__)
    return Figure(
        name="LLM configurations, Spearman, mean over tasks",
        value=float(values.mean()),
        at_least=0.97,
        note=f"{len(values)} tasks, family left out; main {values[main].mean():.4f}, small "
        f"{values[~main].mean():.4f}; median {np.median(values):.3f}; worst "
        f"{rates[worst]:.3f} ({worst[1]})",
    )


def regrets(tasks: pd.DataFrame) -> list[Figure]:
    """Mean regret of the first guess, at the table's prices and at others.

    Args:
        tasks: Those without SLO, with `predicted_rps`.
    """
    found: list[Figure] = []
    prices = {"": tasks["usd_per_hour"]}
    prices |= {name: price(tasks) for name, price in _OTHER_PRICES.items()}
    for name, price in prices.items():
        regret = _regrets(tasks, price)
        values = np.array(list(regret.values()))
        main = np.array([part == "main" for part, _ in regret])
        worst = sorted(regret, key=regret.__getitem__, reverse=True)[:3]
        found.append(
            Figure(
                name="LLM first guess, mean regret without SLO" + (f", {name}" if name else ""),
                value=float(values.mean()),
                unit="%",
                at_most=None if name else 3.5,
                note=f"{len(values)} tasks, family left out; main {values[main].mean():.2f}, "
                f"small {values[~main].mean():.2f}; above 1 % in {(values > 1).sum()}; worst "
                + ", ".join(f"{regret[each]:.0f} ({each[1]})" for each in worst),
            )
        )
    return found


def moved_expectations(
    tasks: pd.DataFrame, architectures: Mapping[str, LlmArchitecture], gpus: Mapping[str, LlmGpu]
) -> list[Figure]:
    """How much hangs on where the fit expects its constants: families left out, all of them moved.

    Every expectation is multiplied by a random factor between 1/1.4 and 1.4. How firmly they are
    held is what all families together choose.
    """
    rows = tasks.drop_duplicates(list(CONFIGURATION_COLUMNS)).sort_values("model", kind="stable")
    measured = MeasuredLlms.of_table(rows, architectures, gpus)
    evidence, _ = chosen_evidence(measured)
    rng = np.random.default_rng(0)
    draws: list[tuple[float, float, float]] = []
    for _ in range(_N_DRAWS):
        factors = np.exp(rng.uniform(-_MOVE, _MOVE, len(CENTRES)))
        centres = {
            name: centre * float(factor)
            for (name, centre), factor in zip(CENTRES.items(), factors, strict=True)
        }
        residual = held_out_residuals(measured, measured.family, evidence, centres=centres)[2]
        # A request's seconds are concurrency over rate: what takes longer is served less often.
        predicted = rows.assign(predicted_rps=rows["throughput_rps"] * np.exp(residual))
        guessed = tasks.drop(columns="predicted_rps").merge(
            predicted[[*CONFIGURATION_COLUMNS, "predicted_rps"]], how="left"
        )
        free = guessed[guessed["slo"] == "none"]
        draws.append(
            (
                100 * float(np.median(np.abs(np.expm1(residual)))),
                float(np.mean(list(_rank_correlations(guessed).values()))),
                float(np.mean(list(_regrets(free, free["usd_per_hour"]).values()))),
            )
        )
    errors, ranks, lost = np.array(draws).T
    moved = f"{_N_DRAWS} draws, family left out"
    return [
        Figure(
            name="LLM throughput, median error, expectations moved up to 40 %",
            value=float(np.median(errors)),
            unit="%",
            note=f"median of {moved}; worst {errors.max():.1f}",
        ),
        Figure(
            name="LLM configurations, Spearman, expectations moved up to 40 %",
            value=float(np.median(ranks)),
            note=f"median of {moved}; worst {ranks.min():.4f}",
        ),
        Figure(
            name="LLM first guess, mean regret without SLO, expectations moved up to 40 %",
            value=float(np.median(lost)),
            unit="%",
            note=f"median of {moved}; best {lost.min():.2f}, worst {lost.max():.2f}",
        ),
    ]


def regrets_with_slo(tasks: pd.DataFrame) -> list[Figure]:
    """Mean regret of the first guess where latencies are bounded.

    The guess is the best by predicted rate times the probabilities that the two latencies meet
    their bounds. One that does not meet them when measured has lost everything.

    Args:
        tasks: Those with SLO, with predicted rates and latencies and their error bars.
    """
    lost: list[float] = []
    infeasible = 0
    for _, own in tasks.groupby(["set", "task"]):
        if not own["feasible"].any():
            continue
        score = (own["predicted_rps"] / own["usd_per_hour"]).to_numpy(dtype=np.float64)
        for metric in ("tpot", "ttft"):
            room = np.log(own[f"slo_{metric}_ms"] / own[f"predicted_{metric}"])
            score = score * stats.norm.cdf(room / own[f"sd_{metric}"])
        guess = int(np.argmax(score))
        measured = own["requests_per_dollar"].where(own["feasible"], 0.0)
        lost.append(100 * (1 - float(measured.iloc[guess]) / float(measured.max())))
        infeasible += not own["feasible"].iloc[guess]
    return [
        Figure(
            name="LLM first guess, mean regret with SLO",
            value=float(np.mean(lost)),
            unit="%",
            note=f"{len(lost)} tasks, family left out; {infeasible} guesses miss the SLO and count "
            f"as 100 %; median {np.median(lost):.1f}",
        )
    ]


def _rank_correlations(tasks: pd.DataFrame) -> dict[tuple[str, str], float]:
    """Spearman's, by set and task."""
    return {
        (str(part), str(task)): float(
            stats.spearmanr(
                own["predicted_rps"] / own["usd_per_hour"], own["requests_per_dollar"]
            ).statistic
        )
        for (part, task), own in tasks.groupby(["set", "task"])
    }


def _regrets(tasks: pd.DataFrame, price: pd.Series) -> dict[tuple[str, str], float]:
    """What the guess of each task loses, in per cent of its best."""
    priced = tasks.assign(
        score=tasks["throughput_rps"] / price, guess=tasks["predicted_rps"] / price
    )
    return {
        (str(part), str(task)): 100
        * (1 - float(own["score"].iloc[int(own["guess"].argmax())]) / float(own["score"].max()))
        for (part, task), own in priced.groupby(["set", "task"])
    }
