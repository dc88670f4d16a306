from typing import Any

from controllers.runtime.interface import Assembly
from controllers.runtime.loop import _named
from kube.informer import Informer, lean
from kube.resources import SECRETS, TENANTS
from tests.fakes import FakeClient


def test_informers_of_the_same_objects_all_run_and_one_listed_twice_runs_once() -> None:
    client = FakeClient()
    tenants = Informer(client, TENANTS, keep=lean)
    keys: Informer[Any] = Informer(client, SECRETS, keep=lean, namespace="system", label_selector="key=true")
    ring: Informer[Any] = Informer(client, SECRETS, keep=lean, namespace="system", field_selector="metadata.name=ring")
    again: Informer[Any] = Informer(client, SECRETS, keep=lean, namespace="system", label_selector="key=true")
    assembly = Assembly(owned={"Tenant": tenants}, children=(keys, ring, again, keys), reconcilers=())
    assert _named(assembly) == {
        "tenants.foretide.dev": tenants,
        "secrets in system where key=true": keys,
        "secrets in system where metadata.name=ring": ring,
        "secrets in system where key=true #2": again,
    }
