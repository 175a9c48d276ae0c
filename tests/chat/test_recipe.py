"""The recipe as a user starts it: the balance, every bad conversation by name, the same bytes for any files, errors."""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer

from pipelines.chat.encode import encode_chat
from pipelines.chat.normalise import normalise_chat
from pipelines.dedup.near import near_duplicates
from pipelines.errors import UserError
from pipelines.recipe import Recipe, load_recipe, with_settings
from pipelines.run import make_plan, run
from pipelines.rundir import RunDir
from pipelines.shards import Shards
from pipelines.shards.roles import BETTER, LAST, TARGET, sequence_grades, sequence_starts
from pipelines.shards.template import Template
from pipelines.shards.verify import verify

Record = dict[str, Any]
WORDS = ["water", "wheel", "level", "turns", "hello", "says", "what", "the", "and"]


def words(number: int, count: int) -> str:
    """Texts that are not alike."""
    return " ".join(WORDS[int(c, 16) % len(WORDS)] for c in hashlib.sha256(str(number).encode()).hexdigest()[:count])


CONVERSATIONS: list[Record] = [
    {"id": i, "instruction": f"What is {i}? {words(i, 40)}", "output": words(1000 + i, 30)} for i in range(40)
]
QUESTION = "How many turns does the wheel make while the water rises from the lower level to the upper?"
BAD: list[tuple[Record, str]] = [
    ({"messages": [{"role": "assistant", "content": "hello"}]}, "chat.start_then_assistant"),
    ({"conversations": [{"from": "human", "value": "a"}] * 2}, "chat.user_then_user"),
    ({"instruction": "hello", "output": ""}, "chat.empty_turn"),
    ({"prompt": "hello", "chosen": "yes", "rejected": "yes"}, "chat.equal_answers"),
    ({"instruction": "hello", "output": "water " * 300}, "chat.too_long"),
    ({"instruction": QUESTION, "output": "Nine."}, "decontaminate.overlap"),
    ({**CONVERSATIONS[3], "id": "again"}, "exact_duplicates.content"),
    ({"messages": [{"role": "oracle", "content": "a"}]}, "UnknownRole"),
    ({"instruction": "hello"}, "UnknownShape"),
]
PAIRS: list[Record] = [
    {"id": f"p{i}", "prompt": words(2000 + i, 40), "chosen": words(3000 + i, 20), "rejected": "no", "rating": "better"}
    for i in range(12)
]


def write_jsonl(path: Path, records: list[Record]) -> str:
    path.write_text("".join(json.dumps(r) + "\n" for r in records), encoding="utf-8")
    return str(path)


def recipe(tokenizer: Path, paths: str, name: str = "chat", sets: tuple[str, ...] = ()) -> Recipe:
    settings = [f"chat.paths={paths}", f"encode_chat.tokenizer={tokenizer}", "encode_chat.context=256"]
    settings += ["shards.validation_share=0.25", f"decontaminate.sets={json.dumps(sets)}"]
    return with_settings(load_recipe(name), settings)


@pytest.fixture(scope="module")
def out(spark: Any, tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    folder = tmp_path_factory.mktemp("run")
    sets = write_jsonl(folder / "set.jsonl", [{"bench": "mill", "id": 7, "question": QUESTION}])
    path = write_jsonl(folder / "chat.jsonl", [*CONVERSATIONS, *(r for r, _ in BAD), *PAIRS])
    full = recipe(tokenizer, path, sets=(sets,))
    quick = replace(full, stages=tuple(s for s in full.stages if s.run is not near_duplicates))  # half a minute of its own
    return run(quick, folder / "out")


@pytest.mark.spark
@pytest.mark.slow
def test_kept_dropped_and_quarantined_are_all_there_were_each_by_its_rule(out: RunDir) -> None:
    ledger = json.loads(out.ledger.read_text())
    assert ledger["balanced"]
    first, last = ledger["stages"][0], ledger["stages"][-1]
    assert (first["in"], last["kept"]) == (len(CONVERSATIONS) + len(BAD) + len(PAIRS), len(CONVERSATIONS) + len(PAIRS))
    lost = {rule: n for stage in ledger["stages"] for part in ("dropped", "quarantined") for rule, n in stage[part].items()}
    assert lost == {rule: 1 for _, rule in BAD}


@pytest.mark.spark
@pytest.mark.slow
def test_the_shards_hold_each_conversation_in_the_tokens_of_the_base(out: RunDir, tokenizer: Path) -> None:
    manifest = verify(out.shards)
    assert (out.tokenizer / "tokenizer.json").read_bytes() == tokenizer.read_bytes()
    library, found = Tokenizer.from_file(str(tokenizer)), set()
    for split in ("train", "validation"):
        stream = Shards(out.shards).stream("chat", split)
        assert stream.has_roles
        at = 0
        for span in stream.documents(0, stream.n_tokens):
            ids, codes = stream.slice(at, span.length), stream.roles(at, span.length)
            at += span.length
            found.add(library.decode(ids.tolist(), skip_special_tokens=False))
            grades = sequence_grades(codes, sequence_starts(codes)).tolist()
            assert grades in ([1], [BETTER, LAST])
            assert TARGET[codes].any()
    asked = {f"<|user|>{r['instruction']}<|end|><|assistant|>{r['output']}<|end|><|endoftext|>" for r in CONVERSATIONS}
    compared = {
        "".join(f"<|user|>{r['prompt']}<|end|><|assistant|>{r[a]}<|end|><|endoftext|>" for a in ("chosen", "rejected"))
        for r in PAIRS
    }
    assert found == asked | compared
    assert {f.split for f in manifest.files} == {"train", "validation"}
    assert manifest.template == asdict(Template())  # how a model that learns from them is to be asked


@pytest.mark.spark
def test_the_same_conversations_give_the_same_bytes_from_any_files(spark: Any, tokenizer: Path, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
    records = [*CONVERSATIONS[:10], *PAIRS]
    write_jsonl(whole / "all.jsonl", records)
    write_jsonl(parts / "some.jsonl", [*PAIRS[6:], *CONVERSATIONS[:4]])
    pq.write_table(pa.Table.from_pylist(CONVERSATIONS[4:10]), parts / "others.parquet")
    write_jsonl(parts / "rest.jsonl", PAIRS[:6])
    made = []
    for folder in (whole, parts):
        full = recipe(tokenizer, str(folder))
        stages = tuple(s for s in full.stages if s.run in (normalise_chat, encode_chat))
        rundir = run(replace(full, stages=stages), tmp_path / f"out-{folder.name}")
        made.append({p.name: p.read_bytes() for p in (rundir.shards / "chat").glob("*.arrow")})
    assert made[0] == made[1]
    assert {name.partition("-")[0] for name in made[0]} == {"train", "validation"}


def test_a_run_without_a_tokenizer_says_how_to_give_one(tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "chat.jsonl", CONVERSATIONS[:2])
    with pytest.raises(UserError, match=r"none is given; use --set encode_chat\.tokenizer="):
        make_plan(with_settings(load_recipe("chat"), [f"chat.paths={path}"]))


def test_preferences_are_read_once_and_conversations_four_times() -> None:
    file = "pipelines/recipes/chat.py"
    root = Path(__file__).parents[2]
    tokens = {"chat": 4_000_000}
    (four,) = load_recipe("chat").schedule(tokens).phases
    (once,) = load_recipe(f"{root / file}:preference").schedule(tokens).phases
    assert four.tokens == pytest.approx(4 * once.tokens, abs=4)
    assert once.tokens == pytest.approx(4_000_000, rel=0.02)
    assert (four.packing, four.sequence_length, four.batch_tokens % 4096) == ("best_fit", 4096, 0)


def test_a_recipe_cannot_take_the_tokenizer_of_a_stage_that_has_none() -> None:
    with pytest.raises(ValueError, match="takes the tokenizer of stage 'decontaminate'; stages with one: encode_chat"):
        replace(load_recipe("chat"), tokenizer="decontaminate")
