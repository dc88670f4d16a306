"""How Sphinx makes the handbook of docs/ (`make docs`): what is where in the navigation, and what counts as a mistake.

Pages are plain Markdown that reads well in the repository too; the navigation is therefore here and not in them. A link
or an anchor that leads nowhere, a page without a place and a wrong option are warnings, and warnings fail the build.
"""

from __future__ import annotations

from pathlib import Path

from sphinx.application import Sphinx

project = "Foretide"
copyright = "the founders of Foretide, Apache-2.0"

extensions = ["myst_parser", "sphinxcontrib.mermaid"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["images"]
nitpicky = True
# Words of the code stay as they are: "true" and --flag.
smartquotes = False

# Anchors are those that the repository's own view makes of headings, down to the fourth level.
myst_heading_anchors = 4
myst_enable_extensions = ["strikethrough"]
myst_fence_as_directive = ["mermaid"]
mermaid_d3_zoom = False

html_theme = "furo"
html_title = "Foretide"
html_static_path = ["_static"]
html_css_files = ["handbook.css"]
html_copy_source = False
html_show_sphinx = False

NAVIGATION = {
    "Start": ["start/cluster", "start/machine", "comparison"],
    "Concepts": [
        "architecture",
        "scaling",
        "forecasting",
        "rollouts",
        "routing",
        "streams",
        "tenants",
        "self-healing",
        "gpu-pools",
        "quality",
        "scheduling",
        "worker",
        "checkpoints",
    ],
    "Tasks": [
        "tasks/models",
        "tasks/slas",
        "tasks/predictive-scaling",
        "tasks/canary",
        "tasks/mig",
        "alerting",
        "tasks/pagerduty-slack",
        "tasks/gitops",
        "tasks/prometheus",
        "tasks/air-gapped",
        "tasks/upgrade",
        "gateway-api",
        "simulate",
    ],
    "Operations": ["runbooks", "troubleshooting", "dashboard", "logs", "tracing", "security"],
    "Reference": [
        "cli",
        "reference/commands",
        "reference/inferenceservice",
        "reference/model",
        "reference/sla",
        "reference/tenant",
        "reference/gpupool",
        "reference/alertpolicy",
        "reference/capacityforecast",
        "reference/values",
        "reference/http",
        "metrics",
    ],
    "Benchmarks": ["benchmarks/index"],
    "Decisions": ["decisions/index"],
}
"""Section of the navigation → its pages; `*` stands for all pages of a folder, in the order of their names."""

INDEXES = ["benchmarks/index", "decisions/index"]
"""Pages below which the rest of their folder stands."""


def with_navigation(app: Sphinx, page: str, source: list[str]) -> None:
    """Puts the navigation, which no reader of the repository wants to see, below the pages that lead to others."""
    if page == app.config.root_doc:
        named = {page for pages in NAVIGATION.values() for page in pages}
        # A new page has a place before somebody chose one.
        others = sorted(path.stem for path in Path(app.srcdir).glob("*.md") if path.stem not in named | {page})
        sections = {**NAVIGATION, "Concepts": [*NAVIGATION["Concepts"], *others]}
        source[0] += "".join(_toctree(section, pages) for section, pages in sections.items())
    if page in INDEXES:
        source[0] += _toctree(None, [page.replace("index", "*")])


def _toctree(caption: str | None, pages: list[str]) -> str:
    options = ":glob:" if caption is None else f":hidden:\n:glob:\n:caption: {caption}"
    rows = "\n".join(f"/{page}" for page in pages)
    return f"\n\n```{{toctree}}\n{options}\n\n{rows}\n```\n"


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", with_navigation)
