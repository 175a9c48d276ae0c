"""Documents that hold questions of an evaluation set: found in any dress, told from what only looks like one."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest

from pipelines.decontaminate import DecontaminateConfig, decontaminate
from pipelines.errors import UserError
from pipelines.read.rows import ROW
from pipelines.schema import record_batch

QUESTION = (
    "A mill wheel turns nine times a minute. How many litres does it lift in half an hour, if each turn lifts forty litres?"
)
CHINESE = (
    "\u6c34\u8f66\u6bcf\u5206\u949f\u8f6c\u4e5d\u5708\uff0c\u6bcf\u5708\u63d0\u6c34\u56db\u5341\u5347\u3002"
    "\u534a\u5c0f\u65f6\u4e00\u5171\u80fd\u63d0\u8d77\u591a\u5c11\u5347\u6c34\uff1f\u8bf7\u5199\u51fa\u8ba1\u7b97\u8fc7\u7a0b\u548c\u7b54\u6848\u3002"
)
AROUND = "The headrace leads the river to the turbine. "


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("sets") / "mill.jsonl.gz"
    rows = [
        {"bench": "mill", "id": 1, "question": QUESTION},
        {"bench": "mill", "id": 2, "question": CHINESE},
        {"bench": "mill", "id": 3, "question": "What is water?"},
    ]
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode(), mtime=0))
    return str(path)


def decided(cfg: DecontaminateConfig, text: str | None) -> tuple[str | None, float | None, str | None]:
    batch = record_batch({"doc_id": [bytes(16)], "text": pa.array([text], pa.string())}, ROW)
    result = decontaminate(batch, cfg)
    return tuple(result[name].to_pylist()[0] for name in ("drop_rule", "drop_value", "drop_entry"))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("text", "share", "entry"),
    [
        (AROUND + QUESTION + AROUND, 1.0, "mill/1"),
        (AROUND + QUESTION.upper().replace(" ", "\n") + AROUND, 1.0, "mill/1"),
        (AROUND + QUESTION.replace(".", " --").replace(",", ";"), 1.0, "mill/1"),
        (AROUND + QUESTION[: len(QUESTION) // 2], 0.4, "mill/1"),
        (AROUND + CHINESE + AROUND, 1.0, "mill/2"),
    ],
)
def test_an_item_is_found_in_any_dress(items: str, text: str, share: float, entry: str) -> None:
    rule, value, name = decided(DecontaminateConfig((items,)), text)
    assert (rule, name) == ("decontaminate.overlap", entry)
    assert value == pytest.approx(share, abs=0.05)


@pytest.mark.parametrize("text", [None, "", AROUND * 9, "A mill wheel turns nine times a minute, they say.", "What is water?"])
def test_a_phrase_in_common_is_no_item(items: str, text: str | None) -> None:
    assert decided(DecontaminateConfig((items,)), text)[0] is None


def test_without_sets_nothing_is_dropped() -> None:
    assert decided(DecontaminateConfig(), QUESTION)[0] is None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b'{"prompt": "hi"}\n', "item 0 has prompt, not question; set decontaminate.text"),
        (b"water\n", "cannot be read"),
        (b"[1]\n", "holds a line that is no object"),
        (b"\x1f\x8b\x08\x00", "cannot be read"),
    ],
)
def test_a_set_that_cannot_be_read_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "set.jsonl").write_bytes(content)
    with pytest.raises(UserError, match=says):
        decided(DecontaminateConfig((str(tmp_path / "set.jsonl"),)), QUESTION)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="share 0"):
        DecontaminateConfig(share=0.0)
