"""The pictures are numbers made visible: lengths and areas must say what the numbers say, and any text must stay text."""

import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from pipelines.report import charts, duplicates, svg
from pipelines.report.charts import Histogram, Leaving, Level, Series, Stretch
from pipelines.report.compare import Span, compare
from pipelines.report.duplicates import Point, Size

HOSTILE = "</text><script>alert('\"&')</script>"


def shapes(picture: Markup, tag: str, kind: str | None = None) -> list[ET.Element]:
    return [e for e in ET.fromstring(picture).iter(tag) if kind is None or kind in (e.get("class") or "").split()]


def numbers(element: ET.Element, *names: str) -> tuple[float, ...]:
    return tuple(float(element.get(name) or "nan") for name in names)


def levels(*leaving: tuple[tuple[str, int], ...]) -> list[Level]:
    made, rows = [], 100
    for index, rules in enumerate(leaving):
        made.append(Level(f"stage{index}", rows, tuple(Leaving(rule, n, "dropped") for rule, n in rules)))
        rows = made[-1].kept
    return made


@pytest.mark.parametrize("width", [820, 340])
def test_a_branch_is_as_thick_as_the_rows_it_takes(width: int) -> None:
    picture = charts.funnel(levels((("a", 40), ("b", 20)), (("c", 10),)), width)
    outline = (shapes(picture, "path", "kept")[0].get("d")) or ""
    edges = [float(x) for x in re.findall(r"H([\d.]+)", outline)]
    scale = edges[0] / 100
    assert edges == pytest.approx([100 * scale, 60 * scale, 40 * scale, 30 * scale, 0], abs=0.02)
    thick = {}
    for branch in shapes(picture, "path", "branch"):
        at, below = re.search(r" ([\d.]+)H[\d.]+V([\d.]+)H", branch.get("d") or "").groups()  # type: ignore[union-attr]
        thick[branch[0].text.split(": ")[1]] = float(below) - float(at)  # type: ignore[union-attr]
    assert thick == pytest.approx({"a": 40 * scale, "b": 20 * scale, "c": 10 * scale}, abs=0.02)


def test_branches_leave_in_order_and_do_not_cross() -> None:
    branches = shapes(charts.funnel(levels((("a", 5), ("b", 60), ("c", 20))), 820), "path", "branch")
    assert [b[0].text.split(": ")[1] for b in branches] == ["b", "c", "a"]  # type: ignore[union-attr]
    spans = [tuple(map(float, re.search(r" ([\d.]+)H[\d.]+V([\d.]+)H", b.get("d") or "").groups())) for b in branches]  # type: ignore[union-attr]
    assert all(before[1] <= after[0] for before, after in pairwise(spans))


def test_many_rules_become_one_branch_and_no_row_is_lost() -> None:
    rules = tuple((f"rule{i}", i + 1) for i in range(12))
    branches = shapes(charts.funnel(levels(rules), 820), "path", "branch")
    assert len(branches) == charts.MOST_RULES
    counted = [int(re.search(r": (\d+) rows", b[0].text or "")[1]) for b in branches]  # type: ignore[index]
    assert sum(counted) == sum(n for _, n in rules)


@pytest.mark.parametrize("given_levels", [[], [Level("read", 0, ())], [Level("read", 3, (Leaving("x", 3, "quarantined"),))]])
def test_a_funnel_of_nothing_is_still_a_picture(given_levels: list[Level]) -> None:
    assert "kept" in (ET.fromstring(charts.funnel(given_levels, 340)).get("aria-label") or "")


@pytest.mark.parametrize(("share", "width"), [(0, 0), (0.25, 25), (1, 100), (3, 100), (-1, 0)])
def test_a_bar_is_as_long_as_its_share(share: float, width: float) -> None:
    assert numbers(shapes(charts.bar(share, "kept"), "rect")[0], "width") == (width,)


@pytest.mark.parametrize(
    ("value", "bound", "words"),
    [(12, 50, "at least 50"), (0.31, 0.2, "at most 0.2"), (0, 1, "at least 1"), (9, 0, "at most 0"), (-5, -1, "at least -1")],
)
def test_a_bullet_has_its_dot_outside_of_what_is_allowed(value: float, bound: float, words: str) -> None:
    picture = charts.bullet(value, bound, 200)
    (dot,), (allowed,), (mark,) = (
        shapes(picture, "circle"),
        shapes(picture, "rect", "allowed"),
        shapes(picture, "line", "bound"),
    )
    start, width = numbers(allowed, "x", "width")
    (at,), (bar,) = numbers(dot, "cx"), numbers(mark, "x1")
    assert 0 <= at <= 200
    assert not start < at < start + width
    assert bar == pytest.approx(start if value < bound else start + width, abs=0.02)
    assert words in (ET.fromstring(picture).get("aria-label") or "")


def test_lengths_stand_above_and_hang_below_as_shares_at_one_scale() -> None:
    picture = charts.lengths(Histogram(2.0, 0.1, (1, 4, 0), (2, 0, 8), 150.0, None), "characters", 820)
    kept = [numbers(r, "y", "height") for r in shapes(picture, "rect", "kept")]
    dropped = [numbers(r, "y", "height") for r in shapes(picture, "rect", "dropped")]
    whole = dropped[1][1] / 0.8
    assert [h / whole for _, h in kept] == pytest.approx([0.2, 0.8], abs=0.001)
    assert [h / whole for _, h in dropped] == pytest.approx([0.2, 0.8], abs=0.001)
    assert len({round(y + h, 1) for y, h in kept}) == 1  # one base
    assert len({y for y, _ in dropped}) == 1
    assert max(y + h for y, h in kept) < min(y for y, _ in dropped)
    assert "median 150 characters" in picture
    assert "dropped: median" not in picture


def test_a_mixture_fills_its_phases_by_tokens_and_shares() -> None:
    phases = [
        Stretch("main", 900, 9, 10, 100, {"web": 0.75, "code": 0.25}),
        Stretch("annealing", 300, 3, 10, 100, {"web": 0.5, "code": 0.5}),
    ]
    picture = charts.mixture(phases, {"code": 0, "web": 1}, 820)
    web = [numbers(r, "width", "height") for r in shapes(picture, "rect", "s1")]
    code = [numbers(r, "width", "height") for r in shapes(picture, "rect", "s0")]
    seam = 1.5  # left free between areas
    assert (web[0][0] + seam) / (web[1][0] + seam) == pytest.approx(3, abs=0.01)
    assert (web[0][1] + seam) / (code[0][1] + seam) == pytest.approx(3, abs=0.01)
    assert web[1][1] == pytest.approx(code[1][1])
    assert {"main", "annealing", "9 steps", "web 50%", "code 50%"} <= {t.text for t in shapes(picture, "text")}


def test_curves_rise_with_their_values_and_leave_out_what_is_no_number() -> None:
    line = Series("train", ((0.0, 4.0), (10.0, float("nan")), (20.0, 2.0), (30.0, float("inf")), (40.0, 3.0)), "ink", dots=True)
    picture = charts.curves([line], [(20.0, "annealing")], "loss", 820)
    dots = [numbers(c, "cx", "cy") for c in shapes(picture, "circle")]
    assert len(dots) == 3
    (x0, high), (x1, low), (x2, middle) = dots
    assert high < middle < low  # y grows downwards
    assert x1 - x0 == pytest.approx(x2 - x1, abs=0.02)
    assert middle == pytest.approx((high + low) / 2, abs=0.02)
    assert numbers(shapes(picture, "line", "mark")[0], "x1") == (x1,)
    assert charts.curves([Series("", ((0.0, float("nan")),), "ink")], [], "loss", 820) == ""


def test_a_curve_beside_another_shares_its_axis() -> None:
    def dots(name: str, beside: list[Series]) -> list[tuple[float, ...]]:
        line = Series(name, ((0.0, 1.0), (5.0, 2.0)), "ink", dots=True)
        return [numbers(c, "cx") for c in shapes(charts.curves([line], [], "x", 820, beside=beside), "circle")]

    named = Series("a long name 12.34", ((0.0, 1.0),), "ink")
    assert dots("", [named]) == dots("a long name 12.34", [])
    assert dots("", []) != dots("", [named])


def test_text_from_outside_stays_text() -> None:
    for picture in (
        charts.funnel([Level(HOSTILE, 10, (Leaving(HOSTILE, 5, "dropped"),))], 820),
        charts.bar(0.5, "kept", HOSTILE),
        charts.mixture([Stretch(HOSTILE, 100, 1, 10, 100, {HOSTILE: 1.0})], {HOSTILE: 0}, 820),
        charts.curves([Series(HOSTILE, ((0.0, 1.0),), "ink")], [(0.0, HOSTILE)], HOSTILE, 820),
    ):
        tree = ET.fromstring(picture)
        assert not list(tree.iter("script"))
        assert HOSTILE in [*tree.itertext(), tree.get("aria-label")]


@pytest.mark.parametrize(
    ("low", "high", "count", "expected"),
    [(0, 10, 5, [0, 2, 4, 6, 8, 10]), (0, 1.24e6, 3, [0, 500_000, 1_000_000]), (3.1, 9.2, 3, [4, 6, 8]), (2, 2, 4, [2])],
)
def test_ticks_are_round(low: float, high: float, count: int, expected: list[float]) -> None:
    assert svg.ticks(low, high, count) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, "0"), (0.0003, "0.0003"), (950, "950"), (12_340, "12.3k"), (1_240_000, "1.24M"), (3e9, "3B"), (2e12, "2T")],
)
def test_short_numbers(value: float, expected: str) -> None:
    assert svg.short(value) == expected


@given(st.lists(st.floats(0, 100), min_size=1, max_size=8))
def test_labels_are_spread_apart_in_their_order(wanted: list[float]) -> None:
    placed = svg.spread(wanted, 10, 0, 200)
    ordered = sorted(placed)
    assert all(b - a >= 10 - 1e-6 for a, b in pairwise(ordered))
    assert sorted(range(len(wanted)), key=lambda i: wanted[i]) == sorted(range(len(wanted)), key=lambda i: placed[i])
    assert 0 <= ordered[0] <= ordered[-1] <= 200


def test_a_cut_label_says_so_and_keeps_the_whole_in_its_title() -> None:
    (label,) = shapes(svg.el("g", svg.text(0, 0, "a rule with a very long name", room=80)), "text")
    assert label[0].text == "a rule with a very long name"
    assert (label[0].tail or "").endswith("\u2026")
    assert svg.text_width(label[0].tail or "") <= 80


# --- texts side by side -------------------------------------------------------------------------------------------------


def only(left: str, right: str, most: int = 1000) -> tuple[list[str], list[str]]:
    rows = compare(left, right, most)
    return (
        [s.text for row in rows for s in row.left if s.kind == "only"],
        [s.text for row in rows for s in row.right if s.kind == "only"],
    )


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ("the quick brown fox", "the slow brown fox", (["quick "], ["slow "])),
        ("one\ntwo\nthree", "one\nthree", (["two\n"], [])),
        ("\u4eca\u5929\u5929\u6c14\u5f88\u597d\u3002", "\u4eca\u5929\u5929\u6c14\u4e0d\u597d\u3002", (["\u5f88"], ["\u4e0d"])),
        ("equal", "equal", ([], [])),
        ("", "new", ([], ["new"])),
    ],
)
def test_differences_are_words_or_characters(left: str, right: str, expected: tuple[list[str], list[str]]) -> None:
    assert only(left, right) == expected


def test_what_is_equal_and_far_from_a_difference_is_left_out() -> None:
    same = "word " * 400
    rows = compare(same + "old " + same, same + "new " + same, 1000)
    assert [s for row in rows for s in row.left if s.kind == "left out"] == [
        Span("left out", "1,910 equal characters"),
        Span("left out", "1,910 equal characters"),
    ]
    assert sum(len(s.text) for row in rows for s in row.left) < 500


def test_the_comparison_is_bounded() -> None:
    left, right = (" ".join(f"{letter}{i}" for i in range(20_000)) for letter in "ab")
    rows = compare(left, right, 500)
    assert sum(len(s.text) for row in rows for s in (*row.left, *row.right)) < 2000
    assert rows[-1].left[-1].kind == "left out"


@given(st.text("ab \n\u4e2d\u6587", max_size=60), st.text("ab \n\u4e2d\u6587", max_size=60))
def test_a_short_comparison_loses_nothing(left: str, right: str) -> None:
    rows = compare(left, right, 1000)
    assert "".join(s.text for row in rows for s in row.left) == left
    assert "".join(s.text for row in rows for s in row.right) == right


CURVE = [(0.4 + 0.006 * k, (k / 100) ** 2) for k in range(101)]


@pytest.mark.parametrize("width", [820, 340])
def test_observed_shares_stand_where_the_predicted_line_would_pass(width: int) -> None:
    points = [Point(0.4, 0.0, 0.0, 0.2, 5), Point(0.7, 0.25, 0.1, 0.5, 10), Point(1.0, 1.0, 0.9, 1.0, 20)]
    picture = duplicates.s_curve(CURVE, points, points[2:], 0.75, width)
    line = [tuple(map(float, p.split())) for p in (shapes(picture, "path", "line")[-1].get("d") or "")[1:].split("L")]
    by_x = {round(0.4 + 0.006 * k, 3): at for k, at in enumerate(line)}
    dots = [e for e in shapes(picture, "circle", "kept") if e.find("title") is not None]
    for dot, p in zip(dots, points, strict=True):
        assert numbers(dot, "cx", "cy") == pytest.approx((by_x[p.x][0] - 2.5, by_x[p.x][1]), abs=0.06)
    whiskers = [numbers(e, "y1", "y2") for e in shapes(picture, "line", "whisker")]
    tall = line[0][1] - line[-1][1]
    assert [(below - above) / tall for above, below in whiskers] == pytest.approx([0.2, 0.4, 0.1, 0.1], abs=0.002)
    assert "25.0% of 10 pairs about 0.700 share a bucket (10.0% to 50.0%)" in [d[0].text for d in dots]
    assert len([e for e in shapes(picture, "circle", "dropped") if e.find("title") is not None]) == 1


@pytest.mark.parametrize("threshold", [0.4, 0.75, 0.99, 1.0])
@pytest.mark.parametrize("width", [820, 340])
def test_the_threshold_is_named_inside_of_the_picture(width: int, threshold: float) -> None:
    picture = duplicates.s_curve(CURVE, [], [], threshold, width)
    named = [e for e in shapes(picture, "text") if (e.text or "").startswith("threshold")]
    assert len(named) == (threshold > 0.4)
    for e in named:
        (x,), room = numbers(e, "x"), svg.text_width(e.text or "")
        assert (
            0
            <= (x if e.get("text-anchor") != "end" else x - room)
            <= width - room + (room if e.get("text-anchor") == "end" else 0)
        )


def test_a_column_grows_by_the_same_with_each_power_of_ten() -> None:
    sizes = [Size(1, 1, 1000), Size(2, 2, 100), Size(3, 3, 10), Size(4, 7, 1), Size(8, 15, 0)]
    picture = duplicates.cluster_sizes(sizes, 820)
    high = [numbers(e, "height")[0] for e in [*shapes(picture, "rect", "kept"), *shapes(picture, "rect", "dropped")]]
    assert high[0] - high[1] == pytest.approx(high[1] - high[2], abs=0.02) == pytest.approx(high[2] - high[3], abs=0.02)
    assert high[3] > 0
    assert high[4] == 0
    assert "1 of 4\u20137" in (ET.fromstring(picture).get("aria-label") or "")


@pytest.mark.parametrize("sizes", [[], [Size(1, 1, 0)], [Size(2**k, 2 ** (k + 1) - 1, 10**9 // 2**k) for k in range(24)]])
def test_columns_stay_inside_however_many_there_are(sizes: list[Size]) -> None:
    for width in (820, 340):
        picture = duplicates.cluster_sizes(sizes, width)
        for e in shapes(picture, "rect"):
            x, wide = numbers(e, "x", "width")
            assert 0 <= x <= x + wide <= width
        labels = sorted(numbers(e, "x")[0] for e in shapes(picture, "text", "faint") if e.get("text-anchor") == "middle")
        longest = max((svg.text_width(s.label) for s in sizes), default=0)
        assert all(b - a >= longest for a, b in pairwise(labels))
