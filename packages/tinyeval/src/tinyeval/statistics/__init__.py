"""How sure a number is, and whether two numbers differ: standard errors, paired tests, intervals, many comparisons."""

from tinyeval.statistics.bootstrap import bootstrap_interval
from tinyeval.statistics.many_comparisons import holm
from tinyeval.statistics.paired_items import PairedComparison, items_needed, mcnemar, paired_items, sign_flip
from tinyeval.statistics.paired_runs import many_runs, paired_runs
from tinyeval.statistics.standard_error import Estimate, mean_estimate, proportion_estimate
from tinyeval.statistics.verdict import VERDICTS, Verdict, verdict, verdicts

__all__ = [
    "VERDICTS",
    "Estimate",
    "PairedComparison",
    "Verdict",
    "bootstrap_interval",
    "holm",
    "items_needed",
    "many_runs",
    "mcnemar",
    "mean_estimate",
    "paired_items",
    "paired_runs",
    "proportion_estimate",
    "sign_flip",
    "verdict",
    "verdicts",
]
