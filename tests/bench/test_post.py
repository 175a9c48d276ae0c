"""The benchmark of post-training at a size that needs no GPU: what it feeds to both sides, and that each side runs."""

import json
from pathlib import Path

import pytest

from bench import post
from bench.common import EXAMPLES
from bench.post_run import SHAPES, ours, packing, sequences
from pipelines.shards import Shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return post.write_data(EXAMPLES, tmp_path_factory.mktemp("data"), SHAPES["tiny"].length)


def test_both_sides_read_the_same_documents(shards: Path) -> None:
    opened = Shards(shards)
    for source, count in (("sft", 1), ("preference", 2)):
        found = sequences(opened, source, 20)
        assert [len(document) for document in found] == [count] * 20
        stream = opened.stream(source)
        end = int(stream.bounds(0)[20])
        assert sum(len(ids) + 1 for document in found for ids, _ in document) == end
        for document in found:
            for ids, targets in document:
                assert targets[-1]  # the terminator
                assert not any(targets[: targets.index(True)])
                assert len(ids) == len(targets)


def test_packing_is_the_share_of_places_that_hold_tokens(shards: Path, tmp_path: Path) -> None:
    rows = post.filled(shards, tmp_path, (1024,))
    assert [r.name for r in rows] == ["packing sft, 1,024 tokens", "packing preference, 1,024 tokens"]
    assert all(0.97 < r.ours <= 1 for r in rows)
    values = json.loads((tmp_path / "plan.json").read_text())
    values["phases"][0]["sequence_length"] *= 2
    (tmp_path / "plan.json").write_text(json.dumps(values))
    assert packing(tmp_path / "plan.json", Shards(shards)) == pytest.approx(rows[-1].ours / 2)


@pytest.mark.parametrize("verb", ["sft", "dpo"])
def test_our_side_runs(verb: str, shards: Path, tmp_path: Path) -> None:
    found = ours(verb, SHAPES["tiny"], shards, tmp_path)
    assert found["rate"] > 0
    assert 0.8 < found["filled"] <= 1


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "variant"), [("sft", "padded"), ("dpo", "precomputed")])
def test_trl_runs_in_a_process_of_its_own(verb: str, variant: str, shards: Path, tmp_path: Path) -> None:
    pytest.importorskip("trl", reason="the peer of this benchmark: pip install trl==1.16.0")
    found = post.ran("trl", verb, "tiny", shards, tmp_path, variant)
    assert found is not None
    assert found["rate"] > 0
    assert 0 < found["filled"] <= 1
