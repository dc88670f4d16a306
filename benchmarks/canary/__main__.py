"""`python -m benchmarks.canary [--runs N]`: simulates rollouts and writes docs/benchmarks/canary.{json,md}."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks.canary.judges import Judge, Ours, Thresholds, ZTest
from benchmarks.canary.traffic import CANDIDATE, LOOKS, STABLE, Revision, look
from benchmarks.report import Better, Report, Row, Words, publish
from crds.rollout import Analysis

CHUNK: Final = 250
SEED: Final = 7
OLD: Final = Revision()
KINDS: Final = {
    "equal revisions": Revision(),
    "errors 1% → 3%": Revision(error_rate=0.03),
    "TTFT +20%": Revision(ttft=1.2),
    "TTFT +50%": Revision(ttft=1.5),
    "TPOT +20%": Revision(tpot=1.2),
    "answers 30% longer": Revision(length=1.3),
    "answers 30% shorter": Revision(length=1 / 1.3),
}
PEERS: Final = ("z-test at every look", "z-test once, at the end", "threshold checks")


@dataclass
class Tally:
    """What became of the runs of one kind under one judge."""

    runs: int = 0
    promoted: int = 0
    rolled_back: int = 0
    looks: tuple[int, ...] = ()
    """Until the decision, of each run that was decided."""

    @property
    def shares(self) -> tuple[float, float]:
        """Promoted and rolled back, in percent."""
        return 100 * self.promoted / self.runs, 100 * self.rolled_back / self.runs


def simulate(rng: np.random.Generator, new: Revision, runs: int, judges: dict[str, Judge]) -> dict[str, Tally]:
    """All judges see the same requests."""
    decided = {name: np.zeros(runs, dtype=int) for name in judges}
    promoted = {name: np.zeros(runs, dtype=bool) for name in judges}
    for at in range(LOOKS):
        stable, candidate = look(rng, OLD, runs, STABLE), look(rng, new, runs, CANDIDATE)
        for name, judge in judges.items():
            promote, back = judge.look(stable, candidate, at)
            first = (decided[name] == 0) & (promote | back)
            promoted[name] |= first & promote
            decided[name][first] = at + 1
    return {
        name: Tally(
            runs,
            int(promoted[name].sum()),
            int((decided[name] > 0).sum() - promoted[name].sum()),
            tuple(decided[name][decided[name] > 0].tolist()),
        )
        for name in judges
    }


def measure(runs: int) -> dict[str, dict[str, Tally]]:
    """Every kind under every judge."""
    found: dict[str, dict[str, Tally]] = {}
    for number, (kind, new) in enumerate(KINDS.items()):
        rng = np.random.default_rng([SEED, number])
        sums: dict[str, Tally] = {}
        for begin in range(0, runs, CHUNK):
            size = min(CHUNK, runs - begin)
            peers = (ZTest(repeated=True), ZTest(repeated=False), Thresholds())
            judges: dict[str, Judge] = {"ours": Ours(size, Analysis()), **dict(zip(PEERS, peers, strict=True))}
            for name, tally in simulate(rng, new, size, judges).items():
                before = sums.get(name, Tally())
                sums[name] = Tally(
                    before.runs + tally.runs,
                    before.promoted + tally.promoted,
                    before.rolled_back + tally.rolled_back,
                    before.looks + tally.looks,
                )
        found[kind] = sums
        print(kind, {name: one.shares for name, one in sums.items()}, flush=True)
    return found


def rows(found: dict[str, dict[str, Tally]]) -> list[Row]:
    made: list[Row] = []
    for peer in PEERS:
        for kind, tallies in found.items():
            ours, other = tallies["ours"], tallies[peer]
            wrong = 1 if kind == "equal revisions" else 0
            name = "false rollback" if wrong else "false promote"
            where = f"beside a peer: {peer}"
            made.append(
                Row(where, f"{kind}: {name}", "% of runs", ours.shares[wrong], other.shares[wrong], peer, goal=1.0)
            )
    for kind, tallies in found.items():
        ours = tallies["ours"]
        right = ours.shares[0 if kind == "equal revisions" else 1]
        word = "promoted" if kind == "equal revisions" else "rolled back"
        made.append(Row("until a decision", f"{kind}: {word}", "% of runs", right, goal=90.0, better=Better.HIGHER))
        median = float(np.median(ours.looks)) * CANDIDATE if ours.looks else None
        made.append(Row("until a decision", f"{kind}: requests of the new revision, median", "requests", median))
    return made


WORDS = Words(
    title="Canaries: how often they are judged wrongly",
    command="make bench-canary",
    about=(
        "A good revision that is rolled back costs a night; a bad one that is promoted costs the users. With Foretide's"
        " defaults each happens in less than 1 % of rollouts, however often it looks.",
        f"Each run is one rollout: {LOOKS} looks, between which the new revision ends {CANDIDATE} requests and the old"
        f" one {STABLE}. Errors 1 %; log-normal TTFT (200 ms, σ 0.6), TPOT (20 ms, σ 0.3) and length (150 tokens,"
        " σ 0.7). All judges see the same requests. A run that is neither promoted nor rolled back in that time is"
        " held.",
    ),
    notes=(
        "z-tests: two-sided, 5 % for each of four metrics, uncorrected; they promote what they have not rejected at the"
        " end.",
        "Threshold checks are written as examples of Argo Rollouts and Flagger are: more than 2 % of errors, or a"
        " mean TTFT or TPOT a tenth above the old one's in an interval, is a failed check; three in a row roll back."
        " They are a model of those tools, not the tools themselves, and they do not look at the length of answers.",
        "A shift of exactly the margin (20 %) is the hardest case for the rate of false promotes.",
        "Requests are independent here. Those of a real worker come in clusters: one slow step delays all of them."
        " A tolerance of 10 % and comparison within batches take the edge off that; they do not undo it.",
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2000, help="rollouts of each kind")
    parser.add_argument("--dry", action="store_true", help="write nothing")
    asked = parser.parse_args()
    found = measure(asked.runs)
    if not asked.dry:
        publish(Report.of_now(rows(found)), WORDS, "canary")


if __name__ == "__main__":
    main()
