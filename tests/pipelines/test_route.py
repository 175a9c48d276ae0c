"""Sources of the mixture: by language, and by how many copies of a document there were."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from pipelines.errors import UserError
from pipelines.recipes.web import one_epoch
from pipelines.route import (
    FINEWEB2,
    LabelRouteConfig,
    RehydrateConfig,
    RouteConfig,
    ValueRouteConfig,
    route_by_cluster_size,
    route_by_label,
    route_by_language,
    route_by_value,
)
from pipelines.schedule import (
    Phase,
    Schedule,
    ScheduleConfig,
    ScheduleError,
    compile_schedule,
    copies,
    rehydrated,
    with_copies,
)
from pipelines.schedule.phases import cap_of


def docs(*rows: tuple[str | None, int | None]) -> pa.RecordBatch:
    columns = {
        "source": pa.array([s for s, _ in rows], pa.string()),
        "cluster_size": pa.array([n for _, n in rows], pa.int64()),
    }
    return pa.RecordBatch.from_pydict({**columns, "lang": pa.array(["en"] * len(rows), pa.string())})


@pytest.mark.parametrize(
    ("size", "copies_wanted"),
    [(None, 1), (0, 1), (1, 1), (2, 2), (3, 3), (4, 3), (5, 5), (99, 5), (100, 8), (999, 8), (1000, 1), (10**9, 1)],
)
def test_fineweb_2_wants_so_many_copies_of_a_cluster(size: int | None, copies_wanted: int) -> None:
    routed = route_by_cluster_size(docs(("web-en", size)), RehydrateConfig())
    assert routed["source"].to_pylist() == ["web-en" if copies_wanted == 1 else f"web-en-x{copies_wanted}"]
    assert copies(routed["source"][0].as_py()) == copies_wanted


def test_only_the_named_sources_are_split_and_rows_stay_in_place() -> None:
    batch = docs(("web", 7), ("books", 7), (None, 7), ("web", 1))
    named = route_by_cluster_size(batch, RehydrateConfig(sources=("web",)))
    assert named["source"].to_pylist() == ["web-x5", "books", None, "web"]
    assert route_by_cluster_size(batch, RehydrateConfig())["source"].to_pylist() == ["web-x5", "books-x5", None, "web"]
    assert named.drop_columns(["source"]).equals(batch.drop_columns(["source"]))
    assert route_by_cluster_size(docs(), RehydrateConfig()).num_rows == 0


def test_language_comes_first() -> None:
    routed = route_by_cluster_size(route_by_language(docs(("web", 2)), RouteConfig()), RehydrateConfig())
    assert routed["source"].to_pylist() == ["web-en-x2"]


TEXTS = pa.RecordBatch.from_pydict(
    {
        "source": ["web", "web", "books", "web", "books"],
        "text": ["\u6cb3" * 4, "a" * 10, "b" * 25, None, "c" * 10],
        "label": ["math", "code", "math", None, "poetry"],
        "score": [0.9, 0.2, 0.5, None, 0.1],
    }
)


@pytest.mark.parametrize(
    ("cfg", "sources"),
    [
        (LabelRouteConfig("label", ("math", "code")), ["web-math", "web-code", "books-math", "web-other", "books-other"]),
        (LabelRouteConfig("label", ("math",), other=""), ["web-math", "web", "books-math", "web", "books"]),
        (LabelRouteConfig("label", ("math",), sources=("web",)), ["web-math", "web-other", "books", "web-other", "books"]),
        (ValueRouteConfig(parts=(("long", 10),)), ["web", "web-long", "books-long", "web", "books-long"]),
        (ValueRouteConfig(parts=[["long", 10], ["huge", 20]]), ["web", "web-long", "books-huge", "web", "books-long"]),  # type: ignore[arg-type]
        (ValueRouteConfig("score", (("q1", 0.0), ("q2", 0.5))), ["web-q2", "web-q1", "books-q2", "web", "books-q1"]),
    ],
)
def test_by_label_or_value(cfg: LabelRouteConfig | ValueRouteConfig, sources: list[str]) -> None:
    stage = route_by_label if isinstance(cfg, LabelRouteConfig) else route_by_value
    assert stage(TEXTS, cfg)["source"].to_pylist() == sources
    assert stage(TEXTS.slice(0, 0), cfg).num_rows == 0


def test_a_column_that_is_not_there() -> None:
    with pytest.raises(UserError, match="no column 'knowledge' to route by"):
        route_by_label(TEXTS, LabelRouteConfig("knowledge", ("math",)))
    with pytest.raises(UserError, match="no column 'quality' to route by"):
        route_by_value(TEXTS, ValueRouteConfig("quality"))
    with pytest.raises(ValueError, match="values ascending"):
        ValueRouteConfig(parts=(("long", 5), ("short", 1)))


def test_a_table_of_ones_own() -> None:
    cfg = RehydrateConfig(copies=((1, 1), (10, 4)))
    assert route_by_cluster_size(docs(("a", 9), ("a", 10)), cfg)["source"].to_pylist() == ["a", "a-x4"]
    assert RehydrateConfig(copies=[[1, 1], [10, 4]]) == cfg  # type: ignore[arg-type]  # as --set gives it


@pytest.mark.parametrize("wrong", [(), ((2, 1),), ((1, 1), (1, 2)), ((1, 1), (5, 2), (3, 4)), ((1, 0),)])
def test_a_table_that_says_nothing_is_refused(wrong: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(ValueError, match="sizes ascending from 1"):
        RehydrateConfig(copies=wrong)


def test_what_it_cannot_do_it_says() -> None:
    with pytest.raises(UserError, match="put exact_duplicates or near_duplicates before it"):
        route_by_cluster_size(docs(("web", 1)).drop_columns(["cluster_size"]), RehydrateConfig())
    with pytest.raises(UserError, match="'set-x2' ends like one"):
        route_by_cluster_size(docs(("set-x2", 1)), RehydrateConfig())


@pytest.mark.parametrize(
    ("source", "number"), [("web", 1), ("web-x5", 5), ("web-en-x12", 12), ("x5", 1), ("-x5", 1), ("web-x0", 1), ("web-x", 1)]
)
def test_a_name_says_its_copies(source: str, number: int) -> None:
    assert copies(source) == number


TOKENS = {"web-en": 600_000, "web-en-x2": 120_000, "web-en-x5": 40_000, "books": 200_000, "zh-x8": 5_000}


def read_of(schedule: Schedule) -> dict[str, int]:
    """Samples per source, counted one by one over the whole schedule."""
    counted = dict.fromkeys(schedule.source_tokens, 0)
    for number, phase in enumerate(schedule.config.phases):
        many = schedule.samples(number, 0, phase.tokens // phase.batch_tokens * (phase.batch_tokens // phase.sequence_length))
        for index, count in enumerate(np.bincount(many.source, minlength=len(many.sources)).tolist()):
            counted[many.sources[index]] += count
    return counted


def test_samples_of_a_part_are_as_its_tokens_times_its_copies() -> None:
    cfg = ScheduleConfig((Phase("main", 2_000_000, 100, 1000, {"web-en": 0.7, "books": 0.2, "zh": 0.1}),))
    found = read_of(compile_schedule(rehydrated(cfg, TOKENS), TOKENS))
    assert sum(found.values()) == 20_000
    web = {part: found[part] for part in ("web-en", "web-en-x2", "web-en-x5")}
    total = 600_000 + 2 * 120_000 + 5 * 40_000
    expected = {"web-en": 600_000 / total, "web-en-x2": 240_000 / total, "web-en-x5": 200_000 / total}
    assert {part: count / 14_000 for part, count in web.items()} == pytest.approx(expected, abs=3e-4)
    assert [found["books"], found["zh-x8"]] == pytest.approx([4_000, 2_000], abs=3)
    assert sum(web.values()) == pytest.approx(14_000, abs=3)  # the source as a whole keeps its weight


def test_a_document_of_five_copies_is_read_five_times_as_often_as_one_of_one() -> None:
    cfg = ScheduleConfig((Phase("main", 2_000_000, 100, 1000, {"web-en": 1.0}),))
    epochs = {row.source: row.epochs for row in compile_schedule(rehydrated(cfg, TOKENS), TOKENS).epochs()}
    once = epochs["web-en"]
    assert epochs == pytest.approx({"web-en": once, "web-en-x2": 2 * once, "web-en-x5": 5 * once}, rel=2e-3)


def test_an_epoch_of_the_natural_mixture_reads_each_document_as_often_as_it_is_wanted() -> None:
    schedule = compile_schedule(one_epoch(with_copies(TOKENS)), TOKENS)
    main = {row.source: row.epochs for row in schedule.epochs() if row.phase == "main"}
    assert main == pytest.approx({s: 0.9 * copies(s) for s in TOKENS}, rel=0.06)  # whole samples of small sources
    assert schedule.total_tokens == pytest.approx(sum(with_copies(TOKENS).values()), rel=0.02)


def test_a_bound_is_one_of_the_source_with_its_copies() -> None:
    phase = Phase("main", 2_000_000, 100, 1000, {"web-en": 1.0, "books": 0}, max_epochs={"web-en": 2.0, "books": 3.0})
    spread = rehydrated(ScheduleConfig((phase,)), TOKENS)
    assert dict(spread.phases[0].max_epochs) == {"web-en": 2, "web-en-x2": 4, "web-en-x5": 10, "books": 3}  # type: ignore[arg-type]
    loose = rehydrated(ScheduleConfig((replace(phase, max_epochs=1.5),)), TOKENS).phases[0]
    assert cap_of(loose, "web-en-x5") == 7.5
    compile_schedule(spread, TOKENS)  # 2,000,000 of 1,040,000 tokens
    with pytest.raises(ScheduleError, match="allowed are"):
        compile_schedule(rehydrated(ScheduleConfig((replace(phase, tokens=2_200_000),)), TOKENS), TOKENS)


def test_what_names_its_parts_or_has_none_is_left_as_it_is() -> None:
    cfg = ScheduleConfig((Phase("main", 10_000, 100, 1000, {"web-en": 0.5, "web-en-x2": 0.1, "books": 0.4}, max_epochs=9),))
    left = rehydrated(cfg, TOKENS).phases[0]
    assert dict(left.weights) == {"web-en": 0.5, "web-en-x2": 0.1, "books": 0.4}
    assert {cap_of(left, s) for s in ("web-en", "web-en-x2", "books")} == {9}
    with pytest.raises(ScheduleError, match="source 'code' is not in the shards; they have books, web-en"):
        rehydrated(ScheduleConfig((Phase("main", 10_000, 100, 1000, {"code": 1.0}),)), TOKENS)


def test_the_preset_is_the_published_table() -> None:
    assert dict(FINEWEB2) == {1: 1, 2: 2, 3: 3, 5: 5, 100: 8, 1000: 1}
