# SPDX-License-Identifier: Apache-2.0
"""Writes the tables and pictures of what scripts/benchmark/run.py has measured so far.

    python -m scripts.benchmark.report [--results docs/results] [--plan scripts/benchmark/plan.json]

RESULTS/tables.md has one table per data set and training fraction, the same for corrupted images, how each claim
stands, and the rows of the plan that haven't run. The plan's ``prices`` stand between two marks of the document beside
RESULTS (docs/results.md), and its ``headline`` between two others of that document and of README.md above it. The
pictures are those of scripts/benchmark/pictures.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from dual_skd.errors import InputError
from dual_skd.metrics.paired import RESAMPLES
from scripts.benchmark import pictures, robustness, tables
from scripts.benchmark.claims import claims
from scripts.benchmark.plan import PLAN, RESULTS, read_plan
from scripts.benchmark.results import Results
from scripts.benchmark.store import replace_text

METHOD = """\
Mean and standard deviation over seeds; the test images were used once per cell, by the network of the last epoch.
The difference to the control `{control}` is over the seeds that both have, with a 95 % interval from
{resamples} bootstrap resamples of test images (whole patients, where they are known), the same for both, each with a
draw of Student's t distribution for the mean over the seeds (of one seed: for just these trained networks).
The table of a data set whose sites or folds were held out in turn is over all its images, each by the network that was
trained without its site or fold (so their probabilities have to be comparable for a high AUC); their own tables follow.
They are of the probabilities that are kept, in half precision and at least 1e-7, so that one image counts up to 16 in
the difference of NLL; the columns before are of those that the network gave.
p is two-sided, corrected by Holm over all students of the table, one metric at a time. MACs are per image; CPU ms are
the time of one thread for one image, in brackets as a share of the large network's (`latency.csv`, with the machine).
`auxiliary` is the second network, `mean` the mean of both networks' probabilities, at the cost of both.
†: ran with other settings than the plan has now, all rows of the table.
"""
CALIBRATED = """\
Logits divided by one temperature per network, fitted on its validation images, at least 1. That of a model file is
fitted with a prior besides (docs/experiments.md). Differences are between calibrated networks.
"""
TOGETHER = """\
Networks of several seeds whose calibrated probabilities are averaged: the mean of one alone → all together, AUC and
NLL, with the number of networks. It shows what averaging gains, at as many times the cost. The AUC of one network is
after its temperature, which may change the last digit with three classes or more.
"""
EQUAL_CLASSES = """\
Probabilities divided by the class's number of training images: what those said of how frequent the classes are is taken
back, and the most probable class is that of the best balanced accuracy. `logit_adjustment` trains the same into the
network, and a threshold of the report does the same for two classes. Differences are between such decisions of both.
"""


def put_between_marks(document: Path, lines: Sequence[str], start: str, end: str) -> None:
    """Replaces what stands between the marks of a document; a document without them, or none, is left alone."""
    text = document.read_text(encoding="utf-8") if document.is_file() else ""
    if start in text and end in text:
        before, rest = text.split(start, 1)
        after = rest.split(end, 1)[1]
        document.write_text("".join([before, start, "\n\n", "\n".join(lines), "\n\n", end, after]), encoding="utf-8")


def full_report(results: Results, claim_lines: Sequence[str]) -> list[str]:
    """The lines of tables.md: every table, then the claims."""
    introduction = METHOD.format(control=results.plan["control"], resamples=f"{RESAMPLES:,}")
    lines = ["# Results of the benchmark\n", f"<!-- made from {results.digest()} -->\n"]
    lines += [*tables.headline(results), "", introduction, *tables.row_names(), ""]
    for data, fraction, rows in results.tables():
        lines += tables.table_of(results, data, fraction, rows)
    lines += robustness.tables(robustness.Robustness(results.folder, results.plan, results.hidden))
    lines += [*claim_lines, *tables.comparisons(results), *tables.held_out(results)]
    lines += ["", "## Calibrated", "", CALIBRATED, *tables.corrected_table(results, "calibrated")]
    lines += ["", "## Equally frequent classes", "", EQUAL_CLASSES, *tables.corrected_table(results, "equal classes")]
    if together := tables.together(results):
        lines += ["", "## Several networks together", "", TOGETHER, *together]
    return lines + tables.learning_rates(results) + tables.not_run(results)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--plan", type=Path, default=PLAN)
    parser.add_argument("--no_pictures", action="store_true")
    args = parser.parse_args(arguments)
    try:
        results = Results(args.results, read_plan(args.plan))
        claim_lines = claims(results)
        replace_text(args.results / "tables.md", "\n".join(full_report(results, claim_lines)) + "\n")
        page = args.results.with_suffix(".md")
        put_between_marks(page, tables.by_price(results), "<!-- prices -->", "<!-- /prices -->")
        for document in (page, page.parent.with_name("README.md")):
            put_between_marks(document, tables.headline(results), "<!-- results -->", "<!-- /results -->")
        if not args.no_pictures:
            pictures.draw(results)
    except InputError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
