"""Hugging Face directories that are damaged, incomplete or of another kind are refused with file and tensor."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.worker_image.hf_models import CONFIGS, random_model, save
from worker_image.checkpoint.base import Checkpoint
from worker_image.checkpoint.hf_checkpoint import INDEX_FILE
from worker_image.checkpoint.hf_config import hf_config
from worker_image.checkpoint.json_fields import parse_json
from worker_image.checkpoint.open import open_checkpoint
from worker_image.checkpoint.safetensors_file import SafetensorsFile
from worker_image.checkpoint.source import LoadFormat, find_checkpoint, verify_checkpoint, verify_digest
from worker_image.errors import CheckpointError
from worker_image.models.config import LinearScaling, RopeConfig
from worker_image.models.rope import rope_table
from worker_image.models.tensors import expected_tensors

SINGLE = "model.safetensors"
GATE = "model.layers.1.mlp.gate_proj.weight"
EXAMPLES = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(random_model(CONFIGS["llama"]), tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def pristine_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(random_model(CONFIGS["llama"]), tmp_path_factory.mktemp("shards"), max_shard_size="80KB")


@pytest.fixture
def path(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "model"))


@pytest.fixture
def shards(pristine_shards: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine_shards, tmp_path / "shards"))


def read_all(checkpoint: Checkpoint) -> dict[str, Any]:
    return {name: checkpoint.read(name).values for name in expected_tensors(checkpoint.config)}


def change_json(file: Path, change: Callable[[dict[str, Any]], None]) -> None:
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def change_tensors(path: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(path / SINGLE)
    change(tensors)
    save_file(tensors, path / SINGLE)


def test_shards_and_a_single_file_hold_the_same_tensors(path: Path, shards: Path) -> None:
    assert len(list(shards.glob("*.safetensors"))) > 2
    one, several = read_all(open_checkpoint(path)), read_all(open_checkpoint(shards))
    assert one.keys() == several.keys()
    assert all((one[name] == several[name]).all() for name in one)


def test_a_missing_shard_is_refused_with_its_name_and_a_tensor_of_it(shards: Path) -> None:
    lost = sorted(shards.glob("*.safetensors"))[1]
    lost.unlink()
    with pytest.raises(CheckpointError, match=rf"{lost.name}: the shard with tensor 'model\.\S+' is missing"):
        open_checkpoint(shards)


def test_a_shard_that_the_index_does_not_name_is_refused(shards: Path) -> None:
    lost = sorted(shards.glob("*.safetensors"))[1].name
    change_json(
        shards / INDEX_FILE,
        lambda index: index.update(weight_map={k: v for k, v in index["weight_map"].items() if v != lost}),
    )
    with pytest.raises(CheckpointError, match=rf"{lost}: the shard is not named in {INDEX_FILE}"):
        open_checkpoint(shards)


def test_a_tensor_that_the_index_places_in_another_shard_is_refused(shards: Path) -> None:
    first, second = (file.name for file in sorted(shards.glob("*.safetensors"))[:2])

    def swap(index: dict[str, Any]) -> None:
        name = next(name for name, shard in index["weight_map"].items() if shard == first)
        index["weight_map"][name] = second

    change_json(shards / INDEX_FILE, swap)
    with pytest.raises(CheckpointError, match=rf"{second}: tensor '\S+' is missing; {INDEX_FILE} says it is there"):
        open_checkpoint(shards)


@pytest.mark.parametrize("name", ["../model.safetensors", "/etc/passwd", "model.bin", "", "x" * 300 + ".safetensors"])
def test_an_index_cannot_lead_out_of_the_directory(shards: Path, name: str) -> None:
    change_json(shards / INDEX_FILE, lambda index: index["weight_map"].update({GATE: name}))
    with pytest.raises(CheckpointError, match=rf"tensor '{GATE}' is said to be in .*, which is no file name"):
        open_checkpoint(shards)


def test_one_shard_without_its_index_is_refused(shards: Path) -> None:
    (shards / INDEX_FILE).unlink()
    with pytest.raises(CheckpointError, match=rf"\d+ \*.safetensors files and no {INDEX_FILE}"):
        open_checkpoint(shards)
    for file in sorted(shards.glob("*.safetensors"))[1:]:
        file.unlink()
    with pytest.raises(CheckpointError, match="is one shard of several"):
        open_checkpoint(shards)


def test_a_missing_tensor_a_wrong_shape_and_a_surplus_one_are_refused_by_name(path: Path) -> None:
    change_tensors(path, lambda tensors: tensors.update({GATE: torch.zeros(80, 47)}))
    with pytest.raises(CheckpointError, match=rf"{SINGLE}: tensor '{GATE}' is \[80, 47\]; it must be \[80, 48\]"):
        open_checkpoint(path)
    change_tensors(path, lambda tensors: tensors.__delitem__(GATE))
    with pytest.raises(CheckpointError, match=rf"model: tensor '{GATE}' is missing; it must be \[80, 48\]"):
        open_checkpoint(path)
    change_tensors(path, lambda tensors: tensors.update({GATE: torch.zeros(80, 48), "extra": torch.zeros(1)}))
    with pytest.raises(CheckpointError, match="tensor 'extra' is none that architecture 'llama' has"):
        open_checkpoint(path)


def test_a_type_that_is_not_computed_with_is_refused_by_name(path: Path) -> None:
    change_tensors(path, lambda tensors: tensors.update({GATE: torch.zeros(80, 48, dtype=torch.int8)}))
    with pytest.raises(CheckpointError, match=rf"tensor '{GATE}' has type I8; this worker reads F32, F16, BF16"):
        open_checkpoint(path)


def test_tables_of_old_checkpoints_and_the_stored_copy_of_a_tied_output_are_left_alone(path: Path) -> None:
    def add(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(4)

    change_tensors(path, add)
    change_json(path / "config.json", lambda config: config.update(tie_word_embeddings=True))
    assert "lm_head.weight" not in read_all(open_checkpoint(path))


@pytest.mark.parametrize("type_", [torch.float16, torch.bfloat16, torch.float32])
def test_every_floating_type_is_read_exactly(path: Path, type_: torch.dtype) -> None:
    weight = torch.randn(80, 48, generator=torch.Generator().manual_seed(1)).to(type_)
    change_tensors(path, lambda tensors: tensors.update({GATE: weight}))
    stored = open_checkpoint(path).read(GATE)
    assert stored.bfloat16 == (type_ is torch.bfloat16)
    assert stored.values.tobytes() == weight.view(torch.uint8).numpy().tobytes()


def test_a_file_cut_anywhere_is_refused_with_its_name(path: Path) -> None:
    whole = (path / SINGLE).read_bytes()
    for length in [0, 1, 7, 8, 9, 100, 1000, *range(2000, len(whole), 9973), len(whole) - 1]:
        (path / SINGLE).write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"model\.safetensors: .*\."):
            open_checkpoint(path)


def test_bytes_behind_the_last_tensor_are_refused(path: Path) -> None:
    with (path / SINGLE).open("ab") as file:
        file.write(b"more")
    with pytest.raises(CheckpointError, match=r"has \d+ bytes, its header accounts for \d+"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("length", "header", "sentence"),
    [
        (1 << 60, b"{}", r"its header would have 1152921504606846976 bytes; at most 100000000"),
        (50, b"{}", r"is truncated: the header reaches byte 58"),
        (2, b"[]", "holds a list; it must hold an object"),
        (4, b"{]}}", "is no JSON"),
        (0, b'{"a":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}', "tensor 'a' has unknown type 'F99'"),
        (0, b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}', r"is \[2\] of F32, 8 bytes, but lies in 4"),
        (0, b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', "it must be a list of at most 8 numbers"),
        (0, b'{"a":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}}', "it must be a list of at most 8 numbers"),
        (0, b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0]}}', "data_offsets has 1 numbers"),
        (0, b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[8,12]}}', "a': is truncated|'a' reaches byte"),
        (0, b'{"a":{"shape":[1],"data_offsets":[0,4]}}', "key 'dtype' is absent"),
        (0, b'{"a":7}', "key 'a' is '7'; it must be an object"),
        (0, b'{"a":{"dtype":"F32","shape":[1099511627776,1099511627776],"data_offsets":[0,4]}}', "but lies in 4"),
        (
            0,
            b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
            "overlaps the one before",
        ),
        (0, b'{"a":' * 5000 + b"1" + b"}" * 5000, "is no JSON|must be"),
    ],
)
def test_a_header_that_lies_is_refused_with_a_sentence(
    tmp_path: Path, length: int, header: bytes, sentence: str
) -> None:
    file = tmp_path / "bad.safetensors"
    file.write_bytes((length or len(header)).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(CheckpointError, match=sentence):
        SafetensorsFile(file)


@EXAMPLES
@given(data=st.data())
def test_no_change_of_a_header_does_worse_than_a_sentence(path: Path, pristine: Path, data: st.DataObject) -> None:
    whole = bytearray((pristine / SINGLE).read_bytes())
    header_end = 8 + int.from_bytes(whole[:8], "little")
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, 20) | st.integers(0, header_end - 1))
        whole[at] = data.draw(st.integers(0, 255) | st.sampled_from(b'0123456789-.{}[]",:e'))
    (path / SINGLE).write_bytes(whole)
    with contextlib.suppress(CheckpointError):
        read_all(open_checkpoint(path))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8) | st.sampled_from(["yarn", "dynamic", "linear", "llama3", "silu", "sliding_attention"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=4,
)  # fmt: skip
KEYS = [
    "architectures", "model_type", "hidden_act", "hidden_size", "intermediate_size", "num_hidden_layers", "head_dim",
    "num_attention_heads", "num_key_value_heads", "vocab_size", "max_position_embeddings", "rms_norm_eps",
    "rope_theta", "rope_scaling", "tie_word_embeddings", "sliding_window", "use_sliding_window", "max_window_layers",
    "layer_types", "attention_bias", "mlp_bias", "quantization_config", "partial_rotary_factor",
]  # fmt: skip
ROPE_KEYS = [
    "rope_type", "type", "factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor",
    "beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim", "truncate", "rope_theta",
]  # fmt: skip
PLAIN = {
    "architectures": ["MistralForCausalLM"], "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100, "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
}  # fmt: skip


@EXAMPLES
@given(
    changes=st.dictionaries(st.sampled_from(KEYS), JSON_VALUES, max_size=3),
    rope=st.dictionaries(st.sampled_from(ROPE_KEYS), JSON_VALUES | st.floats(0, 100), max_size=6),
    kind=st.sampled_from(["linear", "dynamic", "llama3", "yarn"]),
)
def test_no_config_does_worse_than_a_sentence_and_what_passes_has_a_rope_table(
    changes: dict[str, Any], rope: dict[str, Any], kind: str
) -> None:
    values = PLAIN | {"rope_scaling": {"rope_type": kind, "factor": 2.0} | rope} | changes
    try:
        config = hf_config(parse_json("config.json", json.dumps(values).encode()))
    except CheckpointError:
        return
    assert torch.isfinite(rope_table(config.rope, config.head_dim, 70)).all()


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "architecture 'MambaForCausalLM' is not supported; this worker has"),
        ({"hidden_size": None}, "key 'hidden_size' is absent; it must be an integer"),
        ({"rms_norm_eps": None}, "key 'rms_norm_eps' is absent; it must be a number"),
        ({"num_hidden_layers": "two"}, "key 'num_hidden_layers' is 'two'; it must be an integer"),
        ({"num_hidden_layers": 10**9}, "n_layers is 1000000000; at most 4096 can be served"),
        ({"hidden_size": 65}, "hidden_size 65 is no multiple of num_attention_heads 4, and there is no head_dim"),
        ({"num_key_value_heads": 3}, "query heads must be a multiple of KV heads"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; this worker has silu"),
        ({"mlp_bias": True}, "mlp_bias is true"),
        ({"quantization_config": {"quant_method": "gptq"}}, r"the weights are quantised \(gptq\)"),
        ({"rope_scaling": {"rope_type": "longrope"}}, "rope_scaling: rope type 'longrope' is not supported; .* yarn"),
        ({"rope_scaling": {"type": "yarn"}}, "rope_scaling: key 'factor' is absent"),
        ({"rope_scaling": {"type": "linear", "factor": 0}}, "rope scaling's factor is 0; it must be from 1"),
        (
            {"rope_parameters": {"rope_type": "default"}, "rope_scaling": {"rope_type": "yarn", "factor": 2}},
            "rope_scaling says rope_type 'yarn', rope_parameters says 'default'; leave one of the two objects out",
        ),
        ({"layer_types": ["full_attention"]}, "layer_types has 1 entries for 2 layers"),
        ({"layer_types": ["mamba", "mamba"]}, "layer_types has 'mamba'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is set"),
    ],
)
def test_a_config_that_cannot_be_served_is_refused_with_its_file_and_key(
    tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(PLAIN | change))
    with pytest.raises(CheckpointError, match=rf"config\.json.*{sentence}"):
        open_checkpoint(tmp_path, LoadFormat.DUMMY)


@pytest.mark.parametrize("older", ["rope_type", "type"])
def test_the_older_name_of_the_rope_may_stand_beside_the_newer_where_both_say_the_same(older: str) -> None:
    newer = {"rope_type": "linear", "factor": 2.0, "rope_theta": 5e5}
    values = PLAIN | {"rope_parameters": newer, "rope_scaling": {older: "linear", "factor": 2.0}}
    config = hf_config(parse_json("config.json", json.dumps(values).encode()))
    assert (config.rope, config.context) == (RopeConfig(5e5, LinearScaling(2.0)), 128)


def test_opening_a_checkpoint_and_its_tokenizer_imports_no_torch() -> None:
    script = (
        "import sys, worker_image.checkpoint.open, worker_image.checkpoint.vocabulary; sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2], timeout=60)


def test_a_directory_without_weights_or_config_is_refused(tmp_path: Path, path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no \*\.gguf file"):
        find_checkpoint(tmp_path, LoadFormat.AUTO)
    with pytest.raises(CheckpointError, match=r"name the directory that holds it"):
        find_checkpoint(path / SINGLE, LoadFormat.AUTO)
    (path / SINGLE).unlink()
    with pytest.raises(CheckpointError, match=r"holds no \*\.safetensors file"):
        open_checkpoint(path)


def test_a_directorys_digest_is_of_the_sorted_list_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("first")
    digest = "sha256:a7937b64b8caa58f03721bb6bacf5c78cb235febe0e70b1b84cd99541461a08e"
    verify_digest(tmp_path, digest, Event())
    (tmp_path / ".note").write_text("not counted")
    verify_digest(tmp_path, digest, Event())
    (tmp_path / "b").write_text("second")
    with pytest.raises(CheckpointError, match=r"has digest sha256:[0-9a-f]{64}, sha256:a7937b64"):
        verify_digest(tmp_path, digest, Event())
    # Of a GGUF file in a directory with other files either digest will do.
    verify_checkpoint(tmp_path, tmp_path / "a", digest, Event())
    with pytest.raises(CheckpointError, match="Fetch it again"):
        verify_checkpoint(tmp_path, tmp_path / "b", digest, Event())
