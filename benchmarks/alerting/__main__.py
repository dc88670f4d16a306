"""`python -m benchmarks.alerting [--quick]`: measures, and writes docs/benchmarks/alerting.{json,md}."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from benchmarks.alerting import anomalies, ranking, storm
from benchmarks.report import RESULTS, Report, Words, publish

WORDS = Words(
    title="Alerts",
    command="make bench-alerting",
    about=(
        "What the alerting controller makes of many alerts at once, how often it names the part that broke, and whether"
        " an anomaly is as rare as was asked. Fleets, faults and loads are made with seeds; nothing here was used to"
        " choose a constant but seeds below 60, which are not measured.",
    ),
    notes=(
        "The storm is 30 node failures at once in a fleet of 60 nodes, taken in as ten messages of an Alertmanager. The"
        " operator is stopped as soon as the last is written down, and started five more times. A page is a message"
        " about a new incident; the peer is the number of groups that Alertmanager makes of the same alerts with"
        " `group_by` of namespace, service, pod and node.",
        "AC@k is the share of faults whose part is among the first k named. Every fault comes with two to eight other"
        " parts that alert for no reason, before and after it, one of them the loudest of all, and with changes of"
        " other revisions. `most explaining` names the part upstream of the most alerting parts.",
        "A revision that only its service suffers from is seldom told from its service unless it was just rolled out,"
        " and a GPU of which no exporter speaks cannot be named at all.",
        "The anomaly's goal is at most twice the false alarms asked for. 3 σ of the day before knows no time of the"
        " day. An event is half an hour at 0.3 or 2.5 times the load.",
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.alerting", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer runs; writes to build/")
    quick = parser.parse_args().quick
    rows = asyncio.run(storm.run())
    rows += ranking.measure(10 if quick else 200)
    rows += anomalies.measure(1 if quick else 4)
    for path in publish(Report.of_now(rows), WORDS, "alerting", Path("build") if quick else RESULTS):
        print(path)


if __name__ == "__main__":
    main()
