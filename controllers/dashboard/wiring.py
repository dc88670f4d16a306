"""Puts the dashboard together. Starts nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from controllers.dashboard.access import Access
from controllers.dashboard.caches import Caches
from controllers.dashboard.past import Past
from controllers.dashboard.server import DashboardServer
from controllers.runtime.interface import Background
from controllers.settings import Settings
from kube.api import Api

PAGE: Final = Path(__file__).resolve().parents[2] / "dashboard" / "dist"
"""In the image and in a checkout alike."""


def wire_dashboard(client: Api, settings: Settings, caches: Caches, past: Past) -> tuple[Background, ...]:
    """Nothing where the administrator has not switched it on."""
    chosen = settings.dashboard
    if not chosen.enabled:
        return ()
    server = DashboardServer(caches, past, Access(client, anonymous=chosen.anonymous_read), PAGE)
    return (Background("the dashboard", lambda: server.run("0.0.0.0", chosen.port)),)
