"""Names shared by the Model controller, the node agent and worker pods."""

import pytest

from controllers.plans.model_volume import cached_name, model_volume


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("file:///srv/models/smollm2.gguf", "smollm2.gguf"),
        ("https://models.example/a/b/m.gguf?token=x/y.bin#z", "m.gguf"),
        ("https://models.example/a%20b.gguf", "a b.gguf"),
        ("https://models.example/x%2F..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("https://models.example/%2E%2E", "."),
        ("hf://owner/repo@main/weights/m.gguf", "m.gguf"),
        ("hf://owner/repo@main", "."),
        ("hf://owner/repo", "."),
        ("s3://bucket/prefix/m.safetensors", "m.safetensors"),
        ("s3://bucket/prefix/", "."),
        ("oci://registry.example/team/model:v1", "."),
    ],
)
def test_the_cached_name_is_the_last_component_of_the_source(source: str, name: str) -> None:
    assert cached_name(source) == name


def test_a_cached_model_has_a_claim_and_a_volume_of_its_own() -> None:
    volume = model_volume("demo", "smollm2-135m", "https://models.example/m.gguf")
    assert volume.claim_name == "smollm2-135m-model"
    assert volume.volume_name is not None
    assert volume.volume_name.startswith("foretide-demo-smollm2-135m-")
    assert volume.worker_path == "/models/m.gguf"


def test_a_pvc_source_names_the_users_claim_and_makes_no_volume() -> None:
    volume = model_volume("demo", "m", "pvc://weights/llama/../m.gguf")
    assert (volume.claim_name, volume.volume_name, volume.worker_path) == ("weights", None, "/models/llama/m.gguf")


def test_a_whole_claim_is_the_mount_itself() -> None:
    assert model_volume("demo", "m", "pvc://weights/").worker_path == "/models"


def test_volumes_of_namespaces_and_models_that_join_to_the_same_text_differ() -> None:
    one = model_volume("a-b", "c", "file:///m.gguf").volume_name
    other = model_volume("a", "b-c", "file:///m.gguf").volume_name
    assert one != other


def test_a_volume_name_stays_within_63_characters() -> None:
    name = model_volume("n" * 63, "m" * 63, "file:///m.gguf").volume_name
    assert name is not None
    assert len(name) <= 63
