"""Two models on the same items of the same tasks: which differences are real, corrected for looking at many.

Only what is the same can be compared: tasks of one version and identity, items of one seed and limit. Perplexity per token is
refused where tokenizers differ; bits per byte are what can be compared then.
"""

from __future__ import annotations

from dataclasses import dataclass

from tinyeval.result import Result, Results
from tinyeval.statistics import PairedComparison, Verdict, paired_items, verdicts


class Incomparable(ValueError):
    """Two results that do not compare; the message is one line and says what would."""


@dataclass(frozen=True)
class TaskComparison:
    """One task: both means, the difference item by item, and the verdict on `model` as against `baseline`."""

    task: str
    metric: str
    mean: float
    baseline_mean: float
    difference: PairedComparison
    verdict: Verdict


def compare(model: Results, baseline: Results, *, level: float = 0.05, seed: int = 0) -> list[TaskComparison]:
    """Every task that both have a score for, in the model's order, verdicts Holm-corrected over all of them.

    Skipped tasks are left out. Raises Incomparable for results of different tasks, versions or items, and where no task is
    common.
    """
    pairs = [
        (result, baseline.results[name])
        for name, result in model.results.items()
        if name in baseline.results and result.skipped is None and baseline.results[name].skipped is None
    ]
    if not pairs:
        raise Incomparable("compare: the two have no task in common that was scored")
    differences = [compare_task(result, other, seed=seed) for result, other in pairs]
    said = verdicts(differences, higher_is_better=[result.higher_is_better for result, _ in pairs], level=level)
    compared = []
    for (result, other), difference, word in zip(pairs, differences, said, strict=True):
        mean, base = result.scores[result.metric].mean, other.scores[other.metric].mean
        compared.append(TaskComparison(result.task, result.metric, mean, base, difference, word))
    return compared


def compare_task(result: Result, baseline: Result, metric: str | None = None, *, seed: int = 0) -> PairedComparison:
    """The difference of two results in ``metric`` (default: the task's own), item by item.

    Raises Incomparable where they are not of the same items, or the metric is per token and the tokenizers differ.
    """
    name = result.metric if metric is None else metric
    if (result.task, result.version, result.identity) != (baseline.task, baseline.version, baseline.identity):
        raise Incomparable(
            f"{result.task} v{result.version} ({result.identity}) and {baseline.task} v{baseline.version} "
            f"({baseline.identity}) are not the same task; evaluate both again"
        )
    if name == "perplexity":
        raise Incomparable(_perplexity_refusal(result, baseline))
    for one in (result, baseline):
        if one.skipped is not None or any(name not in record.scores for record in one.records):
            raise Incomparable(f"{one.task}: {one.model} has no {name} ({one.skipped or 'not one of its metrics'})")
    theirs = {record.id: record.scores[name] for record in baseline.records}
    if [record.id for record in result.records] != list(theirs):
        raise Incomparable(
            f"{result.task}: not asked the same items (seeds {result.seed} and {baseline.seed}, limits {result.limit} and "
            f"{baseline.limit}, {result.n} and {baseline.n} items); evaluate both with the same seed and limit"
        )
    return paired_items([record.scores[name] for record in result.records], list(theirs.values()), seed=seed)


def _perplexity_refusal(result: Result, baseline: Result) -> str:
    offered = "compare bits_per_byte instead"
    both = [one.scores["bits_per_byte"].mean for one in (result, baseline) if "bits_per_byte" in one.scores]
    if len(both) == 2:
        offered += f": {both[0]:.4f} and {both[1]:.4f}"
    if result.tokenizer_id is None or result.tokenizer_id != baseline.tokenizer_id:
        return (
            f"{result.task}: perplexities of different tokenizers ({result.tokenizer_id}, {baseline.tokenizer_id}) do not "
            f"compare; {offered}"
        )
    return f"{result.task}: perplexity is one number of the whole text, with nothing to pair; {offered}"
