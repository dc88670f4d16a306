"""The output folder of a run: one JSON file per finished stage, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


class Results:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def has(self, name: str) -> bool:
        return self._path(name).exists()

    def save(self, name: str, value: dict[str, Any]) -> None:
        """Written whole or not at all."""
        unfinished = self._path(name).with_suffix(".unfinished")
        unfinished.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
        unfinished.replace(self._path(name))

    def load(self, name: str) -> dict[str, Any]:
        """Empty where the stage was not run."""
        if not self.has(name):
            return {}
        value: dict[str, Any] = json.loads(self._path(name).read_text(encoding="utf-8"))
        return value

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"
