import pytest
import torch
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, create_mask

from trainer.attention import BLOCK, Bounds, Cache, Place, attend, block_mask, dense_mask, document_mask, prefixes
from trainer.config import Kernel


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


def test_prefix_mask_token_by_token() -> None:
    # documents:            a  a  a  a  b  b  b  c  c
    # has a target:         -  -  x  x  x  x  x  -  -
    # prefix:               a  a  a     b        c  c
    documents = torch.tensor([[1, 1, 1, 1, 2, 2, 2, 3, 3]])
    prefix = prefixes(documents, torch.tensor([[0, 0, 1, 1, 1, 1, 1, 0, 0]]).bool())
    assert prefix[0].int().tolist() == [1, 1, 1, 0, 1, 0, 0, 1, 1]
    expected = [
        [1, 1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 1, 0, 0, 0],
        [0, 0, 0, 0, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 1, 1],
        [0, 0, 0, 0, 0, 0, 0, 1, 1],
    ]
    assert dense_mask(documents, prefix)[0, 0].int().tolist() == expected


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


def _prefix(lengths: list[int], share: float) -> torch.Tensor:
    """The first part of each document, one token at least."""
    parts = [torch.arange(n) < max(1, round(share * n)) for n in lengths]
    return torch.cat(parts)[None]


@pytest.mark.parametrize("share", [None, 0.0, 0.3, 1.0])
@pytest.mark.parametrize("lengths", LAYOUTS)
def test_block_mask_lists_exactly_the_blocks_that_the_dense_mask_needs(lengths: list[int], share: float | None) -> None:
    documents, prefix = _documents(lengths), None if share is None else _prefix(lengths, share)
    size = documents.shape[1]
    dense = dense_mask(documents, prefix)[0, 0]
    ours = block_mask(documents, prefix)
    assert ours.mask_mod is not None
    assert torch.equal(create_mask(ours.mask_mod, 1, None, size, size, device="cpu")[0, 0], dense)
    blocks = [[part for part in row.split(BLOCK, 1)] for row in dense.split(BLOCK)]
    for row in range(len(blocks)):
        partial = set(ours.kv_indices[0, 0, row, : ours.kv_num_blocks[0, 0, row]].tolist())
        full = set(ours.full_kv_indices[0, 0, row, : ours.full_kv_num_blocks[0, 0, row]].tolist())
        assert not partial & full
        for column in range(len(blocks)):
            assert (column in partial | full) == bool(blocks[row][column].any())
            assert (column in full) == bool(blocks[row][column].all())
    theirs = create_block_mask(lambda b, h, q, k: dense[q, k], 1, None, size, size, device="cpu")
    assert torch.equal(theirs.to_dense() > 0, ours.to_dense() > 0)


def _heads(length: int, batch: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, heads, length, 8, generator=generator, requires_grad=True) for heads in (4, 2, 2)]


@pytest.mark.parametrize("kernel", ["auto", "dense", "varlen"])
def test_each_kernel_computes_what_the_dense_mask_says(kernel: Kernel) -> None:
    rows = torch.cat((_documents([5, 1, 30, 4]), _documents([40])))
    leaves = _heads(40)
    results = []
    for mask in (dense_mask(rows), document_mask(rows, kernel)):
        out = attend(*leaves, mask)
        results.append([out, *torch.autograd.grad(out.square().sum(), leaves)])
    for oracle, found in zip(*results, strict=True):
        torch.testing.assert_close(found, oracle, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("share", [None, 0.4])
def test_flex_attention_computes_what_the_dense_mask_says(share: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = [100, 28, 60, 100]
    documents, prefix = _documents(lengths), None if share is None else _prefix(lengths, share)
    q, k, v = (x.detach() for x in _heads(288, batch=1))
    mask = document_mask(documents, "flex", prefix)
    assert isinstance(mask, BlockMask)
    monkeypatch.setattr("trainer.attention._flex", lambda: torch.nn.attention.flex_attention.flex_attention)  # no compiler
    torch.testing.assert_close(attend(q, k, v, mask), attend(q, k, v, dense_mask(documents, prefix)), atol=1e-5, rtol=1e-5)


def test_varlen_is_told_where_documents_begin() -> None:
    rows = torch.stack((_documents([5, 1, 2])[0], _documents([8])[0]))
    bounds = document_mask(rows, "varlen")
    assert isinstance(bounds, Bounds)
    assert bounds.bounds.dtype == torch.int32
    assert bounds.bounds.tolist() == [0, 5, 6, 8, 16]
    with pytest.raises(ValueError, match="varlen attention is causal"):
        document_mask(rows, "varlen", torch.ones_like(rows, dtype=torch.bool))


def test_cached_keys_give_the_same_attention_as_all_at_once() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, heads, 9, 8, generator=generator) for heads in (4, 2, 2))
    whole = attend(q, k, v, None)
    cache, begins = Cache(2, 16), torch.tensor([[0], [3]])  # a row each: one begins at the first position, one at the fourth
    parts = []
    for part in (slice(0, 4), slice(4, 5), slice(5, 9)):
        positions = begins + torch.arange(9)[part]
        keys, values = Place(cache, positions, 16).extend(k[:, :, part], v[:, :, part])
        sees = (torch.arange(16) <= positions[..., None]) & (torch.arange(16) >= begins[..., None])
        parts.append(attend(q[:, :, part], keys, values, sees[:, None]))
    torch.testing.assert_close(torch.cat(parts, 2), whole)
