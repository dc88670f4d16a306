import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from crds import conditions
from crds.fields import quantity, seconds
from crds.inference_service import InferenceServiceSpec, InferenceServiceStatus
from crds.kinds import KINDS
from crds.render import RenderError, object_schema, render


@pytest.mark.parametrize(
    ("text", "expected"), [("50ms", 0.05), ("1s", 1.0), ("90s", 90.0), ("2m", 120.0), ("28d", 2_419_200.0)]
)
def test_a_duration_is_read_in_seconds(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "5", "s", "0s", "-1s", "1.5s", "1 s", "1y", "1s "])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="write for example 30s"):
        seconds(text)


@pytest.mark.parametrize(
    ("text", "expected"), [("1", 1), ("500m", 0.5), ("2Gi", 2 * 2**30), ("1.5k", 1500), ("0.25", 0.25)]
)
def test_a_quantity_is_read_as_kubernetes_reads_it(text: str, expected: float) -> None:
    assert float(quantity(text)) == expected


@given(st.integers(1, 999_999), st.sampled_from(["m", "", "Ki", "Mi", "Gi"]))
def test_quantities_grow_with_their_number(number: int, suffix: str) -> None:
    assert quantity(f"{number + 1}{suffix}") > quantity(f"{number}{suffix}")


def test_a_number_is_accepted_where_a_quantity_stands() -> None:
    spec = InferenceServiceSpec.model_validate({"model": "m", "accelerator": {"cpu": {"cores": 2}}})
    assert spec.accelerator.cpu is not None
    assert spec.accelerator.cpu.cores == "2"


def test_reading_drops_fields_that_a_newer_release_added() -> None:
    spec = InferenceServiceSpec.model_validate({"model": "m", "accelerator": {"cpu": {}}, "fromTheFuture": 1})
    assert "fromTheFuture" not in spec.dump()


def test_a_missing_field_is_an_error_that_names_it() -> None:
    with pytest.raises(ValidationError, match="accelerator"):
        InferenceServiceSpec.model_validate({"model": "m"})


def test_dump_and_read_are_inverse() -> None:
    spec = InferenceServiceSpec.model_validate(
        {
            "model": "m",
            "accelerator": {"mig": {"profile": "1g.10gb"}},
            "scaling": {"max": 3},
            "nodeSelector": {"a": "b"},
        }
    )
    assert InferenceServiceSpec.model_validate(spec.dump()) == spec


@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.kind)
def test_every_kind_has_what_a_person_expects_of_a_resource(kind) -> None:
    crd = render(kind)
    version = crd["spec"]["versions"][0]
    assert "foretide" in crd["spec"]["names"]["categories"]
    assert "status" in version["subresources"]
    assert {"Age", "Message"} <= {c["name"] for c in version["additionalPrinterColumns"]}
    conditions = version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["conditions"]
    assert conditions["x-kubernetes-list-map-keys"] == ["type"]


def test_the_conditions_of_a_service_are_listed_where_they_are_described() -> None:
    described = InferenceServiceStatus.model_fields["conditions"].description or ""
    others = {conditions.BORROWING, conditions.DEMAND_MET}
    ours = {value for name, value in vars(conditions).items() if name.isupper()} - others
    assert set(re.findall("[A-Z][A-Za-z]+", described)) == ours


def test_a_field_without_a_description_cannot_be_rendered() -> None:
    from pydantic import BaseModel

    class Undocumented(BaseModel):
        a: int

    with pytest.raises(RenderError, match="no description"):
        object_schema(Undocumented)
