"""How much there is of everything."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """The size of a run. The defaults are the ones that the goals speak of."""

    objects: int = 1000
    pods: int = 10_000
    edits: int = 300
    edits_per_s: float = 10.0
    changes_per_s: float = 50.0
    window_s: float = 20.0
    """Length of the windows in which nothing, or only pods, change."""
    restarts: int = 3

    def __post_init__(self) -> None:
        if self.objects < 4 or self.pods < self.objects:
            raise ValueError(
                f"{self.objects} objects and {self.pods} pods: at least 4 objects and one pod each are needed."
            )

    @property
    def quiet_s(self) -> float:
        """No write for so long means that a subject has done all it wants."""
        return 2.0 if self.objects >= 100 else 0.8

    @property
    def peer_status_every_s(self) -> float:
        """Period of the peer's timers."""
        return 10.0 if self.objects >= 100 else 1.0

    @property
    def namespaces(self) -> int:
        return max(1, min(20, self.objects // 10))

    @property
    def replicas(self) -> int:
        """Workers of each InferenceService."""
        return self.pods // self.objects

    @property
    def models_per_namespace(self) -> int:
        return 5

    @property
    def slas_per_namespace(self) -> int:
        return 2

    @property
    def nodes(self) -> int:
        return 20

    @property
    def counts(self) -> dict[str, int]:
        """Objects of each kind that the operator looks at."""
        return {
            "InferenceService": self.objects,
            "Model": self.namespaces * self.models_per_namespace,
            "SLA": self.namespaces * self.slas_per_namespace,
            "Tenant": self.namespaces,
        }
