"""`python -m benchmarks.prefix_leak [--probes 1500]`: attacks with and without salts, and writes the page."""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.prefix_leak.attack import Ask, Times, attack, with_prompt, with_schema
from benchmarks.prefix_leak.scores import auc
from benchmarks.prefix_leak.stage import stage
from benchmarks.report import Better, Report, Row, Words, publish

CHANCE, FROM_CHANCE = 0.5, 0.05
LEAKS = 0.9
"""What the control must reach at least: a stage on which no leak could be seen would prove nothing."""
WARM_UP = 20
ATTACKS: dict[str, Ask] = {"the beginning of a prompt": with_prompt, "a JSON schema": with_schema}
WORDS = Words(
    title="Learning another tenant's prompts by timing",
    command="make bench-prefix-leak",
    about=(
        "A victim and an attacker, two tenants with keys of their own, use one service: a real gateway process, and a"
        " real worker process with a random model of 4 layers. Again and again the victim asks something new; then the"
        " attacker asks for the same beginning (1,024 tokens), or for one that nobody has asked before, as chance has"
        " it, and takes the time to the first token. A worker that has the beginning in its cache answers sooner. How"
        " well the time tells the two apart is the area under the curve (AUC) of a classifier: 0.5 is chance, 1 is"
        " certainty. The same for JSON schemas, which workers compile once.",
        "*Foretide* is what is so unless somebody says otherwise: each tenant has a salt of its own. *One domain* is"
        " the control: both Tenants name the same `cacheDomain`, and share as if there were no salt.",
    ),
    notes=(
        "The interval is DeLong's, of 95 % confidence: 0.05 to either side with 500 probes, 0.03 with the 1,500 of the"
        " default. The goal is the AUC's distance from 0.5.",
        "The attacker sees single times of an otherwise idle service, the best case for it: load adds noise, and asking"
        " again does not help, since its own first probe of a beginning warms the next.",
        "Not covered: how much others ask at all, which the wait for a busy worker tells everybody.",
    ),
)  # fmt: skip


async def measure(shared: bool, n_probes: int, seed: int) -> dict[str, Times]:
    found: dict[str, Times] = {}
    with tempfile.TemporaryDirectory() as folder:
        async with stage(Path(folder), shared=shared) as url:
            for name, ask in ATTACKS.items():
                rng = random.Random(f"{seed} {name}")
                await attack(url, ask, WARM_UP, rng)
                found[name] = await attack(url, ask, n_probes, rng)
                print(
                    "shared" if shared else "separate",
                    name,
                    auc(found[name].warmed_s, found[name].others_s),
                    file=sys.stderr,
                    flush=True,
                )
    return found


def _row(name: str, metric: str, unit: str, ours: float, control: float, goal: float | None = None) -> Row:
    """Beside the control, in which all tenants share one cache."""
    return Row(name, metric, unit, ours, control, "one domain", goal)


def rows(separate: dict[str, Times], shared: dict[str, Times]) -> list[Row]:
    made: list[Row] = []
    for name in separate:
        ours, control = (auc(one[name].warmed_s, one[name].others_s) for one in (separate, shared))
        n_probes = len(separate[name].warmed_s) + len(separate[name].others_s)
        row = partial(_row, name)
        made += [
            row("AUC", "", ours.value, control.value),
            row("lower end of its interval", "", ours.low, control.low),
            row("upper end of its interval", "", ours.high, control.high),
            row(
                "distance of the AUC from chance",
                "",
                abs(ours.value - CHANCE),
                abs(control.value - CHANCE),
                FROM_CHANCE,
            ),
            row(
                "time to the first token of a warmed probe, median",
                "ms",
                *_medians_ms(separate[name].warmed_s, shared[name].warmed_s),
            ),
            row("the same, of any other probe", "ms", *_medians_ms(separate[name].others_s, shared[name].others_s)),
            row("probes", "probes", n_probes, len(shared[name].warmed_s) + len(shared[name].others_s)),
            Row(
                f"{name}: the control",
                "AUC in one domain: there is a leak to be seen",
                "",
                control.value,
                goal=LEAKS,
                better=Better.HIGHER,
            ),
        ]
    return made


def _medians_ms(ours_s: list[float], control_s: list[float]) -> tuple[float, float]:
    return 1000 * median(ours_s), 1000 * median(control_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--probes", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    separate, shared = (asyncio.run(measure(shared, args.probes, args.seed)) for shared in (False, True))
    report = Report.of_now(rows(separate, shared))
    for path in publish(report, WORDS, "prefix_leak"):
        print(path)
    sys.exit(any(row.met is False for row in report.rows))


if __name__ == "__main__":
    main()
