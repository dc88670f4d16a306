"""The operator's configuration file, checked at start. Unknown fields and bad values are refused with the field named.

Only what an administrator may choose lives here. Process options (log level, kubeconfig, addresses) are flags of
`operator/main.py`.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator


class SettingsError(Exception):
    """The configuration file is missing, not YAML or JSON, or says something that is not allowed."""


def _network(value: object) -> object:
    """An address in a network names it as well: 10.1.2.3/8 is 10.0.0.0/8."""
    return ip_network(value, strict=False) if isinstance(value, str) else value


Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]


class Section(BaseModel):
    """Base of every part of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Images(Section):
    """Container images that the operator puts into the pods it writes."""

    worker_cpu: str = Field("foretide/worker-cpu:dev", min_length=1, description="Worker for `accelerator: cpu`.")
    worker_gpu: str | None = Field(
        None, min_length=1, description="Worker for `accelerator: gpu` and `accelerator: mig`; none when left out."
    )
    pull_policy: str = Field("IfNotPresent", pattern="^(Always|IfNotPresent|Never)$", description="For every worker.")
    pull_secrets: tuple[str, ...] = Field(
        (), description="Secrets to log in with, by name: each service's own namespace needs them."
    )


class ModelCache(Section):
    """Where the node agents keep their copies."""

    path: str = Field(
        "/var/lib/foretide/models", pattern="^/", description="Folder on each node; the agents' --root is the same."
    )
    node_selector: dict[str, str] = Field(
        {}, description="Labels of the nodes that have an agent; all Linux nodes have one when left out."
    )


class History(Section):
    """Where the load of the past is from."""

    prometheus_url: str | None = Field(
        None,
        pattern="^https?://",
        description="Prometheus that scrapes the gateways; the embedded store when left out.",
    )
    path: str | None = Field(
        None, pattern="^/", description="Folder of the embedded store; it is kept in memory when left out."
    )
    max_bytes: int = Field(512 * 2**20, ge=2**20, description="Most that the embedded store takes on its disk.")
    retention_days: float = Field(35.0, gt=0, le=400, description="How long the embedded store keeps what it knows.")
    scrape_period_s: float = Field(15.0, ge=1.0, le=60.0, description="Between two looks at the gateways' counters.")


class PricesOf(Section):
    """Of an hour of one worker's accelerator, in any one currency."""

    on_demand: float = Field(1.0, gt=0, description="On demand.")
    reserved: float = Field(0.6, ge=0, description="Reserved for long, used or not.")
    spot: float = Field(0.35, ge=0, description="Spot, which may be taken away.")
    interruptions_per_hour: float = Field(0.05, ge=0, description="How often one spot worker is taken away.")
    reclaim_hours: float = Field(0.1, ge=0, description="Hours of a worker that each interruption costs besides.")


class Forecasting(Section):
    """How forecasts are made."""

    step_s: float = Field(600.0, ge=60.0, le=3600.0, multiple_of=60.0, description="Length of a step of the history.")
    refresh_s: float = Field(600.0, ge=5.0, description="Every forecast is made anew in this time.")
    history_days: float = Field(14.0, gt=0, le=60.0, description="How far back forecasts look.")
    processes: int = Field(2, ge=1, le=64, description="Forecasts that are made at the same time.")
    timeout_s: float = Field(60.0, ge=1.0, description="After which a forecast is given up and its process killed.")

    @model_validator(mode="after")
    def _looks_back(self) -> Forecasting:
        if self.history_days * 86_400.0 < self.step_s:
            raise ValueError(f"history_days of {self.history_days:g} is less than one step of {self.step_s:g} s")
        return self


class Dashboard(Section):
    """The web page of the operator that leads."""

    enabled: bool = Field(False, description="Serve it.")
    port: int = Field(8084, ge=1, le=65535, description="Where it listens.")
    anonymous_read: bool = Field(
        False, description="Show it to everybody who reaches the port; else only to holders of a Kubernetes token."
    )


class GpuPools(Section):
    """Where the MIG manager reads what a node may be cut into."""

    manager_namespace: str = Field("gpu-operator", min_length=1, description="Namespace of NVIDIA's MIG manager.")
    config_map: str = Field(
        "foretide-mig-parted",
        min_length=1,
        description="ConfigMap that we write there; name it in the ClusterPolicy as migManager.config.name.",
    )


class Alerting(Section):
    """What AlertPolicies may do."""

    webhook_secret: str | None = Field(
        None,
        min_length=1,
        description="Secret of this namespace whose entry `token` an Alertmanager sends; nobody may when left out.",
    )
    allow_private_networks: tuple[Network, ...] = Field(
        (), description="Private networks in which receivers may be, as CIDRs."
    )
    rule_labels: dict[str, str] = Field(
        {}, description="Labels of the PrometheusRules of exporting AlertPolicies, by which a Prometheus finds them."
    )


class Quality(Section):
    """When answers are compared with what they were (docs/quality.md)."""

    window_s: float = Field(900.0, ge=10.0, description="A window of answers is at least so long.")
    least_answers: int = Field(100, ge=10, le=1_000_000, description="And has at least so many answers.")
    baseline_windows: int = Field(96, ge=10, le=10_000, description="So many windows make a baseline.")


class GatewayParent(Section):
    """A Gateway of the Gateway API that routes attach to."""

    name: str = Field(min_length=1, description="Its name.")
    namespace: str = Field(min_length=1, description="Its namespace; its proxies' pods are taken to run there.")
    section: str | None = Field(None, min_length=1, description="One of its listeners; all when left out.")


class GatewayAPI(Section):
    """An InferencePool and an HTTPRoute for each service, where the cluster knows these kinds."""

    parents: list[GatewayParent] = Field(default_factory=list, description="Nothing is made while there is none.")
    picker_service: str = Field(
        "foretide-endpoint-picker", min_length=1, description="Service of the gateways' endpoint picker."
    )


class Settings(Section):
    """Everything in the file. Each field has a default that works with the charts' defaults."""

    namespace: str = Field("foretide-system", min_length=1, description="Where operator, gateway and keyring live.")
    gateway_admin_service: str = Field(
        "foretide-gateway-admin", min_length=1, description="Headless Service of the gateways' admin port, for probes."
    )
    gateway_url: str = Field(
        "http://foretide-gateway.foretide-system.svc:8080/v1",
        min_length=1,
        description="Base URL for OpenAI clients, as InferenceServices show it.",
    )
    monitoring_namespace: str | None = Field(
        None, min_length=1, description="Namespace whose pods may read the workers' metrics; nobody else when left out."
    )
    images: Images = Field(default_factory=Images, description="Container images.")
    model_cache: ModelCache = Field(default_factory=ModelCache, description="Copies of Models on the nodes.")
    history: History = Field(default_factory=History, description="The load of the past.")
    forecasting: Forecasting = Field(default_factory=Forecasting, description="Forecasts of the load.")
    prices: PricesOf = Field(default_factory=PricesOf, description="What CapacityForecasts reckon with.")
    gateway_api: GatewayAPI = Field(default_factory=GatewayAPI, description="Traffic through the Gateway API.")
    dashboard: Dashboard = Field(default_factory=Dashboard, description="The web page.")
    gpu_pools: GpuPools = Field(default_factory=GpuPools, description="GPUs cut into MIG slices.")
    quality: Quality = Field(default_factory=Quality, description="What answers are like.")
    alerting: Alerting = Field(default_factory=Alerting, description="Alerts and who is told.")
    roll_releases: bool = Field(
        False, description="A new release of the operator replaces workers that it would make otherwise."
    )
    workers: int = Field(16, ge=1, le=256, description="Reconciles that may run at once.")
    resync_period_s: float = Field(300.0, ge=10.0, description="Every object is looked at once in this time.")
    relist_period_s: float = Field(
        900.0, ge=5.0, description="Every cache is compared with the API server about once in this time."
    )


def load_settings(path: Path | None) -> Settings:
    """Read the file (YAML, of which JSON is a part); without a path, the defaults. Raises SettingsError."""
    if path is None:
        return Settings()
    return _checked(path, _parsed(path))


def _parsed(path: Path) -> object:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"Configuration file '{path}' cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SettingsError(f"Configuration file '{path}' is not YAML: {error}.") from error


def _checked(path: Path, raw: object) -> Settings:
    try:
        return Settings.model_validate({} if raw is None else raw)
    except ValidationError as error:
        found = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'file'}: {one['msg']}" for one in error.errors())
        raise SettingsError(f"Configuration file '{path}': {found}. Correct it and start again.") from error
