"""What a card's KV cache may take, and what its rows are told of changes: arithmetic that needs no card."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from worker_image.engine.batch import TableUpdate
from worker_image.engine.card_rows import CardRows, parameter_words
from worker_image.engine.gpu_loading import check_deterministic
from worker_image.engine.gpu_memory import (
    GRAPH_BYTES,
    LIBRARIES_BYTES,
    CardMemory,
    activation_bytes,
    kv_bytes,
    share_left,
    share_of,
)
from worker_image.engine.messages import Sampling
from worker_image.engine.sequence import Sequence
from worker_image.errors import SettingsError
from worker_image.models.config import ModelConfig, RopeConfig

GIB = 1 << 30
SHAPE = ModelConfig("llama", 32, 4096, 14336, 32, 8, 128, 128256, 131072, RopeConfig(500000.0), 1e-5)


def test_the_cache_gets_the_cards_share_less_weights_the_largest_step_and_graphs() -> None:
    memory = CardMemory(140 * GIB, 124 * GIB)
    left = kv_bytes(memory, 0.9, 2 * GIB, 10)
    assert left == int(140 * GIB * 0.9) - 16 * GIB - 4 * GIB - LIBRARIES_BYTES - 10 * GRAPH_BYTES


def test_a_card_that_weights_fill_is_refused_with_what_it_has_and_needs() -> None:
    with pytest.raises(SettingsError, match=r"24576 MiB; weights and others use 20480.*leaves no KV cache"):
        kv_bytes(CardMemory(24 * GIB, 4 * GIB), 0.9, GIB, 10)


def test_what_only_cublas_could_multiply_is_refused_in_deterministic_mode_and_a_vocabulary_of_any_size_is_not() -> None:
    check_deterministic(replace(SHAPE, vocab=32001))
    for odd, said in ({"hidden": 4098}, "hidden is 4098"), ({"ffn": 14337}, "ffn is 14337"):
        with pytest.raises(SettingsError, match=f"{said}; it must be a multiple of 8"):
            check_deterministic(replace(SHAPE, **odd))


def test_a_share_counts_what_this_worker_holds_and_not_what_others_do() -> None:
    memory = share_of(20 * GIB, own_bytes=6 * GIB, free_bytes=40 * GIB)
    assert memory == CardMemory(20 * GIB, 14 * GIB)
    assert share_left(memory, GIB, 10) == 14 * GIB - 2 * GIB - LIBRARIES_BYTES - 10 * GRAPH_BYTES


def test_a_share_that_others_have_taken_is_only_what_is_left_on_the_card() -> None:
    assert share_of(20 * GIB, own_bytes=6 * GIB, free_bytes=3 * GIB) == CardMemory(20 * GIB, 3 * GIB)
    with pytest.raises(SettingsError, match=r"--gpu-memory-bytes gives 20480 MiB.*nothing is left for the KV cache"):
        share_left(share_of(20 * GIB, own_bytes=19 * GIB, free_bytes=60 * GIB), GIB, 10)


def test_activations_grow_with_tokens_and_samples_and_count_the_widest_pair() -> None:
    one = activation_bytes(SHAPE, 1, 0, 2)
    assert one == (4 * 4096 + 3 * 14336) * 2 + 32
    assert activation_bytes(SHAPE, 1000, 0, 2) == 1000 * one
    assert activation_bytes(SHAPE, 1000, 3, 2) == 1000 * one + 3 * 128256 * 8
    assert activation_bytes(replace(SHAPE, ffn=1), 1, 0, 2) < one


def a_sequence(row: int, sampling: Sampling, seed: int) -> Sequence:
    return Sequence(0, [1], sampling, limit=9, n_prompt=1, seed=seed, row=row)


def test_parameters_of_a_row_are_the_bits_that_the_card_reads() -> None:
    seed = 0xFEDCBA9876543210
    (words,) = parameter_words([a_sequence(0, Sampling(4, temperature=0.7, top_p=0.9, min_p=0.1, top_k=40), seed)])
    assert words[:3].view(np.float32) == pytest.approx([0.7, 0.9, 0.1])
    assert words[3] == 40
    assert words[4:6].view(np.uint64)[0] == seed


def test_tables_and_rows_change_where_a_batch_says_so_and_the_last_word_on_a_place_wins() -> None:
    rows = CardRows(3, 4, torch.device("cpu"))
    updates = [TableUpdate(1, 0, [5, 6, 7]), TableUpdate(2, 3, [9]), TableUpdate(1, 1, [8])]
    rows.apply(updates, [a_sequence(2, Sampling(4, temperature=0.5), 3)])
    assert rows.tables.blocks.tolist() == [[0, 0, 0, 0], [5, 8, 7, 0], [0, 0, 0, 9]]
    assert rows.tables.parameters[2, 0].view(torch.float32) == 0.5
    assert rows.tables.parameters[:2].sum() == 0
