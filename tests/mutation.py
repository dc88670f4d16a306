"""`python -m tests.mutation [--each 12]`: small changes of pure modules, one at a time, that some test should notice.

Takes the same sample of each module's changes every time, in a copy of the tree, and prints those that no test noticed.
Needs cosmic-ray; `make mutation` installs it. Never touches the tree itself.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cosmic_ray.work_db import WorkDB, use_db
from cosmic_ray.work_item import WorkerOutcome, WorkResult

ROOT: Final = Path(__file__).parent.parent
TESTS: Final[Mapping[str, str]] = {
    "controllers/plans/quota.py": "tests/plans/test_quota.py tests/plans/test_borrowing.py",
    "controllers/plans/borrowing.py": "tests/plans/test_borrowing.py",
    "controllers/plans/fair_share.py": "tests/plans/test_fair_share.py",
    "controllers/plans/limits.py": "tests/plans/test_limits.py",
    "forecasting/policy/decide.py": "tests/forecasting/test_policy.py",
    "forecasting/policy/limits.py": "tests/forecasting/test_policy.py",
    "forecasting/policy/need.py": "tests/forecasting/test_policy.py",
    "gateway/sharing.py": "tests/gateway/test_sharing.py",
}
_TYPES: Final = "BitOr"
"""A changed `|` stands in an annotation, which nobody runs."""
CONFIG: Final = """[cosmic-ray]
module-path = "{module}"
timeout = 120.0
excluded-modules = []
test-command = "{python} -m pytest -q -x -p no:cacheprovider {tests}"
[cosmic-ray.distributor]
name = "local"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="all without any")
    parser.add_argument("--each", type=int, default=12, help="changes of each module")
    args = parser.parse_args()
    if unknown := set(args.modules) - set(TESTS):
        parser.error(f"no module {', '.join(sorted(unknown))}; there are {', '.join(TESTS)}")
    copy = copied(ROOT / "build/mutation")
    survivors = [one for module in args.modules or TESTS for one in survived(copy, module, args.each)]
    print(f"{len(survivors)} survived")
    sys.exit(bool(survivors))


def copied(to: Path) -> Path:
    """The tracked files, as they are now."""
    shutil.rmtree(to, ignore_errors=True)
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name)
    return to


def survived(copy: Path, module: str, each: int) -> list[str]:
    """Descriptions of the sampled changes that no test noticed; says of each what became of it as it goes."""
    config, session = copy / "mutation.toml", copy / "mutation.sqlite"
    config.write_text(CONFIG.format(module=module, python=sys.executable, tests=TESTS[module]))
    session.unlink(missing_ok=True)
    _cosmic_ray(copy, "init", config, session)
    with use_db(session, WorkDB.Mode.open) as work:
        _keep_a_sample(work, each)
    _cosmic_ray(copy, "exec", config, session)
    with use_db(session, WorkDB.Mode.open) as work:
        done = [
            (item, result)
            for item, result in work.completed_work_items
            if result.worker_outcome != WorkerOutcome.SKIPPED
        ]
    found = [_told(item, result) for item, result in done if result.test_outcome == "survived"]
    print(f"{module}: {len(done) - len(found)} of {len(done)} changes noticed", flush=True)
    print("".join(found), end="", flush=True)
    return found


def _keep_a_sample(work: WorkDB, each: int) -> None:
    items = [(one.mutations[0], one.job_id) for one in work.work_items]
    order = sorted((str(one), job) for one, job in items if _TYPES not in one.operator_name)
    kept = {job for _, job in random.Random(1).sample(order, min(each, len(order)))}
    for _, job in items:
        if job not in kept:
            work.set_result(job, WorkResult(worker_outcome=WorkerOutcome.SKIPPED))


def _cosmic_ray(copy: Path, *arguments: Any) -> None:
    subprocess.run([sys.executable, "-m", "cosmic_ray.cli", *map(str, arguments)], cwd=copy, check=True)


def _told(item: Any, result: Any) -> str:
    return f"--- {item.mutations[0].operator_name} at line {item.mutations[0].start_pos[0]}\n{result.diff}\n"


if __name__ == "__main__":
    main()
