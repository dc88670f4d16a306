"""The handbook's build is strict: what leads nowhere fails it. The real pages are built by `make check`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"


PAGE = """# Title

[here](#title) and [a file](LICENSE)

[x](none.md)

[x](#none)

![x](none.png)

[x](../examples/none.yaml)
"""


def test_what_leads_nowhere_fails_the_build_and_nothing_else_does(tmp_path: Path) -> None:
    conf = (DOCS / "conf.py").read_text()
    tmp_path.joinpath("conf.py").write_text(conf + "\nNAVIGATION = {'Concepts': []}\n")
    tmp_path.joinpath("index.md").write_text(PAGE)
    tmp_path.joinpath("LICENSE").touch()
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "--keep-going",
        "-q",
        "-b",
        "dummy",
        str(tmp_path),
        str(tmp_path / "out"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    assert sorted(re.findall(r"index\.md:(\d+): WARNING", done.stderr), key=int) == ["5", "7", "9", "11"]
