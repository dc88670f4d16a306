"""A step's inputs out of tables on the device: what each token, sequence and sample gets; padding gets none."""

from __future__ import annotations

import pytest
import torch

from worker_image.kernels.sampling import SamplingParameters
from worker_image.kernels.step_inputs import (
    PARAMETER_WORDS,
    RowTables,
    TokenInputs,
    gather_tables,
    keep_newest,
    sampling_inputs,
    scatter,
    token_inputs,
    token_inputs_reference,
)

PAGE = 16
FULL = -7


def a_table(n_rows: int = 5, n_columns: int = 9) -> RowTables:
    generator = torch.Generator().manual_seed(3)
    blocks = torch.randperm(n_rows * n_columns, generator=generator).view(n_rows, n_columns).int()
    newest = torch.arange(100, 100 + n_rows, dtype=torch.int32)
    return RowTables(blocks, newest, torch.zeros(n_rows, PARAMETER_WORDS, dtype=torch.int32))


def empty(n: int) -> TokenInputs:
    return TokenInputs(*(torch.full((n,), FULL, dtype=torch.int64) for _ in range(3)))


@pytest.mark.parametrize("n_tokens", [1, 3, 128, 131])
def test_tokens_come_from_the_host_or_from_the_row_and_slots_from_its_table(n_tokens: int) -> None:
    tables, generator = a_table(), torch.Generator().manual_seed(n_tokens)
    described = torch.stack(
        [
            torch.randint(-1, 5, (n_tokens,), generator=generator),
            torch.randint(0, 9 * PAGE, (n_tokens,), generator=generator),
            torch.randint(-1, 50, (n_tokens,), generator=generator),
        ]
    ).int()
    described[1, described[0] < 0] = 0
    out = empty(n_tokens)
    token_inputs(described, tables, PAGE, out)
    wanted = token_inputs_reference(described, tables, PAGE)
    real = described[0] >= 0
    assert torch.equal(out.token_ids[real], wanted.token_ids[real])
    assert torch.equal(out.positions, wanted.positions)
    assert torch.equal(out.slots, wanted.slots)


def test_padding_writes_to_no_slot_and_decodes_a_token_that_every_vocabulary_has() -> None:
    out = empty(2)
    token_inputs(torch.tensor([[-1, 2], [0, 17], [-1, -1]]).int(), a_table(), PAGE, out)
    assert out.token_ids.tolist() == [0, 102]
    assert out.slots[0] == -1
    assert out.slots[1] == int(a_table().blocks[2, 1]) * PAGE + 1


def test_a_sequence_gets_the_columns_its_length_needs_and_no_other_is_touched() -> None:
    tables = a_table()
    rows, lengths = torch.tensor([4, -1, 0]).int(), torch.tensor([33, 0, 16]).int()
    out = torch.full((3, 9), FULL, dtype=torch.int32)
    gather_tables(rows, lengths, tables.blocks, PAGE, out)
    assert torch.equal(out[0, :3], tables.blocks[4, :3])
    assert torch.equal(out[2, :1], tables.blocks[0, :1])
    assert int((out == FULL).sum()) == 27 - 4


def test_samples_get_their_rows_parameters_and_padding_is_greedy() -> None:
    tables = a_table()
    seed = 0xFEDCBA9876543210
    words = torch.tensor([0.7, 0.9, 0.05]).view(torch.int32).tolist()
    signed = [seed & 0xFFFFFFFF, seed >> 32]
    tables.parameters[3, :6] = torch.tensor([*words, 40, *(x - (x >> 31 << 32) for x in signed)]).int()
    n = 2
    floats = [torch.full((n,), 9.0) for _ in range(3)]
    out = SamplingParameters(
        floats[0], torch.full((n,), 9, dtype=torch.int32), floats[1], floats[2],
        torch.zeros(n, dtype=torch.int64), torch.zeros(n, dtype=torch.int64),
    )  # fmt: skip
    sampling_inputs(torch.tensor([3, -1]).int(), torch.tensor([77, 0]).int(), tables, out)
    assert out.temperature.tolist() == pytest.approx([0.7, 0.0])
    assert out.top_p[0] == pytest.approx(0.9)
    assert out.min_p[0] == pytest.approx(0.05)
    assert out.top_k[0] == 40
    assert int(out.seeds[0]) & (1 << 64) - 1 == seed
    assert out.positions.tolist() == [77, 0]


def test_newest_tokens_are_kept_by_row_and_padding_keeps_none() -> None:
    tables = a_table()
    keep_newest(torch.tensor([4, -1, 1]).int(), torch.tensor([7, 8, 9]), tables.newest)
    assert tables.newest.tolist() == [100, 9, 102, 103, 7]


def test_scattered_values_lie_where_they_were_sent() -> None:
    target = torch.zeros(4, 6, dtype=torch.int32)
    scatter(torch.tensor([23, 0, 7]).int(), torch.tensor([1, 2, 3]).int(), target)
    assert target.view(-1)[[23, 0, 7]].tolist() == [1, 2, 3]
    assert int(target.sum()) == 6
