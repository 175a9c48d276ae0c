import pytest
import torch
from torch.nn.attention.flex_attention import create_block_mask

from trainer.attention import BLOCK, Cache, attend, block_mask, dense_mask


def test_mask_token_by_token() -> None:
    # documents:            a  a  b  b  b  c
    documents = torch.tensor([[1, 1, 2, 2, 2, 3]])
    expected = [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [0, 0, 1, 0, 0, 0],
        [0, 0, 1, 1, 0, 0],
        [0, 0, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 1],
    ]
    assert dense_mask(documents)[0, 0].int().tolist() == expected


LAYOUTS = [
    [1000],  # one document
    [1] * 512,
    [128, 128, 256],  # documents begin on block borders
    [100, 28, 300, 84, 1, 127],
    [5, 500, 7],
    [130, 126, 10, 134, 40],  # 440: the last block is not full
]


def _documents(lengths: list[int]) -> torch.Tensor:
    return torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))[None]


@pytest.mark.parametrize("lengths", LAYOUTS)
def test_block_mask_lists_exactly_the_blocks_that_the_dense_mask_needs(lengths: list[int]) -> None:
    documents = _documents(lengths)
    size = documents.shape[1]
    dense = dense_mask(documents)[0, 0]
    ours = block_mask(documents)
    blocks = [[part for part in row.split(BLOCK, 1)] for row in dense.split(BLOCK)]
    for row in range(len(blocks)):
        partial = set(ours.kv_indices[0, 0, row, : ours.kv_num_blocks[0, 0, row]].tolist())
        full = set(ours.full_kv_indices[0, 0, row, : ours.full_kv_num_blocks[0, 0, row]].tolist())
        assert not partial & full
        for column in range(len(blocks)):
            assert (column in partial | full) == bool(blocks[row][column].any())
            if column in full:
                assert blocks[row][column].all()
    theirs = create_block_mask(
        lambda b, h, q, k: (q >= k) & (documents[b, q] == documents[b, k]), 1, None, size, size, device="cpu"
    )
    assert torch.equal(theirs.to_dense() > 0, ours.to_dense() > 0)


def test_cached_keys_give_the_same_attention_as_all_at_once() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, heads, 9, 8, generator=generator) for heads in (4, 2, 2))
    whole = attend(q, k, v, None)
    cache, parts = Cache(9), []
    for part in (slice(0, 4), slice(4, 5), slice(5, 9)):
        parts.append(attend(q[:, :, part], *cache.extend(k[:, :, part], v[:, :, part]), None))
    torch.testing.assert_close(torch.cat(parts, 2), whole)
    with pytest.raises(ValueError, match="cannot hold 10"):
        cache.extend(k[:, :, :1], v[:, :, :1])
