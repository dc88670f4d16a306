"""Fails when a generated file is not what its source gives (`python -m tests.generated`, part of `make check`)."""

from __future__ import annotations

import sys
from pathlib import Path

from crds.contract import GROUP
from crds.kinds import KINDS
from crds.render import text
from tests import generated_metrics
from tests.generated_messages import FOLDER, messages
from tests.handbook import pages

ROOT = Path(__file__).parent.parent
FOLDERS = (ROOT / "crds/manifests", ROOT / "charts/foretide-crds/templates")


def stale() -> list[str]:
    """Relative paths of the files that `make generate` would change, make or leave without a source."""
    wanted = {f"{GROUP}_{kind.plural}.yaml": text(kind) for kind in KINDS}
    found = []
    for folder in FOLDERS:
        have = {path.name: path.read_text() for path in folder.glob(f"{GROUP}_*.yaml")}
        found += [
            str((folder / name).relative_to(ROOT))
            for name in have.keys() | wanted
            if have.get(name) != wanted.get(name)
        ]
    found += [
        str((ROOT / FOLDER / name).relative_to(ROOT))
        for name, made in messages(ROOT / FOLDER).items()
        if made != (ROOT / FOLDER / name).read_text()
    ]
    if (ROOT / generated_metrics.FILE).read_text() != generated_metrics.page():
        found.append(str(generated_metrics.FILE))
    found += [f"docs/{name}" for name in pages.stale()]
    return sorted(found)


if __name__ == "__main__":
    changed = stale()
    if changed:
        print("Generated files differ from their source; run `make generate` and commit:", *changed, sep="\n  ")
    sys.exit(bool(changed))
