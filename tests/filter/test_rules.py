"""Every rule does what its name says, and the first failing one is recorded with value and bound."""

import dataclasses
import math

import pyarrow as pa
import pytest

from pipelines.errors import UserError
from pipelines.filter.languages import settings
from pipelines.filter.measures import DIALECTS, MeasureConfig, measure
from pipelines.filter.rules import (
    C4,
    FineWeb,
    FineWeb2,
    GopherQuality,
    GopherRepetition,
    Nemo,
    RefinedWeb,
    Rule,
    RulesConfig,
    WebPage,
    all_rules,
    bound_of,
    bounds_of,
    decide,
    rule_set,
    rules_of,
    web_rules,
)
from pipelines.schema import RECORD, record_batch, undecided

SETS = (WebPage, GopherRepetition, GopherQuality, C4, FineWeb, FineWeb2, RefinedWeb, Nemo)
DIALECT_SETS = [
    *(f"{name}@{dialect}" for name in ("gopher_quality", "gopher_repetition") for dialect in DIALECTS[:4]),
    "fineweb@datatrove",
]
RULES = [rule for made in (*(kind() for kind in SETS), *map(rule_set, DIALECT_SETS)) for rule in rules_of(made)]
GOOD = (
    "The river had been rising since the morning, and people of the village came to look at it with their children.\n"
    "Nobody could say how far it would go, but those who have lived here for long knew what to do.\n"
    "They carried their chairs and books upstairs, closed the shutters that face south, and waited for evening.\n"
    "By nine the water stood at the mill; by ten it turned back, slowly, and left a line of grass on every wall."
)


def kept(docs: pa.RecordBatch, cfg: RulesConfig) -> set[int]:
    return {i for i, good in enumerate(undecided(decide(docs, cfg)).to_pylist()) if good}


def table(text: str, lang: str = "en") -> pa.RecordBatch:
    return measure(record_batch({"text": [text], "lang": [lang]}, RECORD), MeasureConfig())


def decision(text: str, cfg: RulesConfig, lang: str = "en") -> tuple[str, float, float] | None:
    docs = decide(table(text, lang), cfg)
    if docs.schema.get_field_index("drop_rule") < 0 or docs["drop_rule"][0].as_py() is None:
        return None
    return docs["drop_rule"][0].as_py(), docs["drop_value"][0].as_py(), docs["drop_bound"][0].as_py()


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_tighter_never_keeps_more(rule: Rule, measured: pa.RecordBatch) -> None:
    loosest = 3.0 if rule.bound is None else rule.bound  # mC4's, which is off
    rule = dataclasses.replace(rule, bound=loosest, by_lang=(), by_language=False)
    assert rule.bound is not None
    steps = sorted({v for v in measured[rule.measure].to_pylist() if v is not None})
    bounds = sorted(
        {rule.bound, rule.bound / 2, rule.bound * 2, rule.bound + 0.05, steps[0], steps[len(steps) // 2], steps[-1]}
    )
    if rule.kind == "max":
        bounds.reverse()
    before: set[int] | None = None
    for bound in bounds:
        now = kept(measured, RulesConfig(extra=(dataclasses.replace(rule, bound=bound),)))
        assert before is None or now <= before, f"{rule.name}: bound {bound} keeps documents that a looser one dropped"
        before = now
    tightest = bounds[-1] + 1e-9 if rule.kind == "min" else bounds[-1] - 1e-9
    if len(steps) > 1:
        assert len(kept(measured, RulesConfig(extra=(dataclasses.replace(rule, bound=tightest),)))) < len(measured)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_names_tell_the_direction(rule: Rule) -> None:
    assert rule.name.split(".")[1].startswith(f"{rule.kind}_")


def test_no_name_is_given_twice() -> None:
    assert len({rule.name for rule in RULES}) == len(RULES)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_value_on_the_bound_passes(rule: Rule, measured: pa.RecordBatch) -> None:
    value = next(v for v in measured[rule.measure].to_pylist() if v is not None)
    document = measured.slice(measured[rule.measure].to_pylist().index(value), 1)
    exact = dataclasses.replace(rule, bound=value, by_lang=(), by_language=False)
    beyond = math.nextafter(value, math.inf if rule.kind == "min" else -math.inf)
    assert kept(document, RulesConfig(extra=(exact,))) == {0}
    assert kept(document, RulesConfig(extra=(dataclasses.replace(exact, bound=beyond),))) == set()


GOPHER = RulesConfig(gopher_repetition=GopherRepetition(), gopher_quality=GopherQuality())
FAILURES = [
    # text, config, rule, value, bound
    ("", GOPHER, "gopher_repetition.min_chars", 0, 1),
    ("word", RulesConfig(gopher_quality=GopherQuality()), "gopher_quality.min_words", 1, 50),
    ("a b c " * 30, RulesConfig(gopher_quality=GopherQuality()), "gopher_quality.min_mean_word_length", 1, 3),
    ("extraordinarily " * 60, RulesConfig(gopher_quality=GopherQuality()), "gopher_quality.max_mean_word_length", 15, 10),
    ("# great " * 60, RulesConfig(gopher_quality=GopherQuality()), "gopher_quality.max_hash_ratio", 0.5, 0.1),
    ("great ... " * 60, RulesConfig(gopher_quality=GopherQuality()), "gopher_quality.max_ellipsis_ratio", 0.5, 0.1),
    ("\n".join(["- one good line of the list"] * 20), RulesConfig(gopher_quality=GopherQuality()),
     "gopher_quality.max_bullet_lines", 1, 0.9),
    ("\n".join(["one good line of the long list goes on..."] * 20), RulesConfig(gopher_quality=GopherQuality()),
     "gopher_quality.max_ellipsis_lines", 1, 0.3),
    ("12345 word " * 60, RulesConfig(gopher_quality=GopherQuality()), "gopher_quality.min_alpha_words", 0.5, 0.8),
    ("house garden river " * 30, RulesConfig(gopher_quality=GopherQuality()), "gopher_quality.min_stop_words", 0, 2),
    ("one paragraph\n\n" * 4, GOPHER, "gopher_repetition.max_dup_paragraphs", 0.75, 0.3),
    ("one line\n" * 4 + "x", GOPHER, "gopher_repetition.max_dup_lines", 0.6, 0.3),
    (" \n \n", RulesConfig(fineweb=FineWeb()), "fineweb.min_lines", 0, 1),
    (GOOD.replace(".", ""), RulesConfig(fineweb=FineWeb()), "fineweb.min_end_mark_lines", 0, 0.12),
    ("Short.\nLines.\nOnly.", RulesConfig(fineweb=FineWeb()), "fineweb.max_short_lines", 1, 0.67),
    ("Oops! That page can\u2019t be found.\nIt looks like nothing was found at this location. Maybe try a search?",
     RulesConfig(web_page=WebPage()), "web_page.max_notices", 1, 0.25),
    ("You need to enable JavaScript to run this app.", RulesConfig(web_page=WebPage()), "web_page.min_words", 9, 10),
    ("\n".join(f"Cheap insurance quotes {i}" for i in range(90)), RulesConfig(web_page=WebPage()),
     "web_page.max_same_shape_lines", 89 / 90, 0.9),
    ("\n".join(f"About {a} and {b}" for a in ("cars", "boats", "trains") for b in ("sale", "rent", "repair")),
     RulesConfig(web_page=WebPage()), "web_page.max_list_lines", 1, 0.95),
    ("\ufffdPNG \ufffd\ufffd IHDR and so on for as long as it takes to make ten words of it all",
     RulesConfig(web_page=WebPage()), "web_page.max_broken_chars", 3 / 74, 0.02),
]  # fmt: skip


@pytest.mark.parametrize(("text", "cfg", "rule", "value", "bound"), FAILURES, ids=[f[2] for f in FAILURES])
def test_first_failing_rule(text: str, cfg: RulesConfig, rule: str, value: float, bound: float) -> None:
    assert decision(text, cfg) == (rule, pytest.approx(value), pytest.approx(bound))


def test_good_prose_passes_every_set() -> None:
    assert decision(GOOD, RulesConfig(WebPage(), GopherRepetition(), GopherQuality(), None, FineWeb())) is None


@pytest.mark.parametrize(
    ("lang", "text"),
    [
        ("zh", "昨天夜里下了一场大雨、村子旁边的小河涨得很快。老人们说、这条河已经二十年没有这样高了。"
               "大家应该把粮食搬到楼上去。"
               "年轻人不相信。他们站在桥上看热闹、一直看到天黑。半夜时分、水终于退了下去。只在墙上留下一道泥印。第二天早上、孩子们"
               "在田里捡到了几条小鱼、高兴地跑回家、把它们放进水缸里养着。"),
        ("ja", "昨日の夜、村のそばの川がとても増水しました。"
               "お年寄りたちは、こんなに水が高くなったのは二十年ぶりだと言いました。"
               "若い人たちは信じないで、橋の上から川を見ていました。夜中になってやっと水が引き、壁には泥の跡だけが残りました。"
               "次の朝、子どもたちは田んぼで小さな魚を見つけて、うれしそうに家へ走って帰りました。"),
        ("th", "เมื่อคืนฝนตกหนักมาก น้ำในแม่น้ำข้างหมู่บ้านขึ้นสูงอย่างรวดเร็ว คนเฒ่าคนแก่บอกว่าไม่เคยเห็น"
               "น้ำสูงขนาดนี้มายี่สิบปีแล้ว ทุกคนควรย้ายข้าวของขึ้นชั้นบน แต่คนหนุ่มสาวไม่เชื่อและยืนดูอยู่บน"
               "สะพานจนมืด พอถึงเที่ยงคืนน้ำก็ลดลง เหลือเพียงรอยโคลนบนกำแพง"),
    ],
)  # fmt: skip
def test_prose_without_blanks_passes_gopher(lang: str, text: str) -> None:
    assert decision(text, GOPHER, lang) is None


def test_a_language_without_settings_is_not_judged_by_english_stop_words() -> None:
    text = " ".join(f"qalam{chr(97 + i % 26)}{chr(97 + i // 3)} norim" for i in range(60))
    rule = RulesConfig(gopher_quality=GopherQuality())
    assert decision(text, rule, "xx") is None
    assert decision(text, rule, "en") == ("gopher_quality.min_stop_words", 0.0, 2.0)


def test_the_order_of_sets_and_rules_decides_which_is_recorded() -> None:
    cfg = RulesConfig(gopher_quality=GopherQuality(), gopher_repetition=GopherRepetition(), web_page=WebPage())
    names = [rule.name for rule in all_rules(cfg)]
    assert names[0] == "web_page.min_words"
    assert names.index("gopher_repetition.max_dup_10gram") < names.index("gopher_quality.min_words")
    assert decision("word", cfg) == ("web_page.min_words", 1.0, 10.0)


def test_bounds_by_language_and_off() -> None:
    text = "\u4f60\u597d" * 10
    assert decision(text, RulesConfig(gopher_quality=GopherQuality()), "zh") == ("gopher_quality.min_words", 10.0, 50.0)
    looser = GopherQuality(
        by_lang=(("zh", "min_words", 10.0), ("zh", "min_mean_word_length", None), ("zh", "min_stop_words", None))
    )
    assert decision(text, RulesConfig(gopher_quality=looser), "zh") is None
    assert decision(text, RulesConfig(gopher_quality=looser), "en") == ("gopher_quality.min_words", 10.0, 50.0)
    assert decision("word", RulesConfig(gopher_quality=GopherQuality(min_words=None, min_stop_words=None))) is None


def test_own_rule_in_one_line() -> None:
    assert decision(GOOD, RulesConfig(extra=(Rule("mine.max_words", "words", "max", 20.0),)))[0] == "mine.max_words"  # type: ignore[index]


def test_errors_say_what_to_do() -> None:
    docs = record_batch({"text": ["x"], "lang": ["en"]}, RECORD)
    with pytest.raises(UserError, match=r"gopher_quality.min_words needs the column 'words'; put the stage `measure` before"):
        decide(docs, RulesConfig(gopher_quality=GopherQuality()))
    with pytest.raises(UserError, match="put the stage `c4_lines` before"):
        decide(docs, RulesConfig(c4=C4()))
    with pytest.raises(UserError, match="there is no rule 'min_word' for 'zh'"):
        rules_of(GopherQuality(by_lang=(("zh", "min_word", 1.0),)))


JUNK = [
    ("en", "404 Not Found\nThe requested URL /old.html was not found on this server.\nApache Server at example.org"),
    ("de", "Seite nicht gefunden\nDie gesuchte Seite gibt es leider nicht mehr. Bitte nutzen Sie die Suche."),
    ("fr", "Page introuvable\nLa page que vous recherchez n'existe pas ou plus. Utilisez la recherche."),
    ("ru", "Ошибка 404: страница не найдена\nЗапрошенный документ был удалён, перемещён или никогда здесь не публиковался."),  # noqa: RUF001
    ("zh", "抱歉、您访问的页面不存在或已被删除。请检查您输入的网址是否正确、或返回首页继续浏览。"),
    ("ja", "お探しのページは見つかりませんでした。アドレスが変更されたか、削除された可能性があります。"),
    ("en", "This domain is for sale! Buy this domain today. Ask our brokers about the price of it."),
    ("en", "Checking your browser before accessing the site. This process is automatic. Ray ID: 7d1f2a"),
    ("en", "You must be logged in to view this topic. Please log in or register a new account to go on reading."),
    ("en", "\n".join(f"{name} hotels" for name in ("Paris", "London", "Rome", "Oslo", "Vienna", "Lima"))),
]  # fmt: skip


@pytest.mark.parametrize(("lang", "text"), JUNK)
def test_pages_that_are_none(lang: str, text: str) -> None:
    assert decision(text, RulesConfig(web_page=WebPage()), lang) is not None


@pytest.mark.parametrize(
    "text",
    [
        GOOD + "\nWhen a page is gone, servers answer with 404 Not Found.",
        # no line breaks at all: the phrase speaks for its surroundings, not for the page
        " ".join([GOOD.replace("\n", " "), "A page not found is an error of its own.", GOOD.replace("\n", " ")]),
        "\n".join(
            f"{line} of the evening"
            for line in ("I saw the light", "You heard the wind", "We kept the fire", "They lost the song")
        ),
    ],
)
def test_pages_that_are_pages(text: str) -> None:
    assert decision(text, RulesConfig(web_page=WebPage())) is None


def test_web_rules_keep_more_than_the_published_ones(measured: pa.RecordBatch) -> None:
    published = RulesConfig(WebPage(), GopherRepetition(), GopherQuality(), None, FineWeb())
    assert kept(measured, published) < kept(measured, web_rules())


@pytest.mark.parametrize("name", DIALECT_SETS)
def test_a_dialect_asks_its_own_measures_with_the_published_bounds_in_every_language(name: str) -> None:
    base, _, dialect = name.partition("@")
    published = {rule.name.partition(".")[2]: rule.bound for rule in rules_of(rule_set(base))}
    rules = rules_of(rule_set(name))
    assert any(rule.measure.endswith(f"@{dialect}") for rule in rules)
    for rule in rules:
        set_name, _, field = rule.name.partition(".")
        assert set_name == name
        assert rule.measure.partition("@")[2] in ("", dialect)
        assert {bound_of(rule, lang) for lang in ("en", "de", "zh", "xx", None)} == {published[field]}


def test_dialects_lack_what_their_package_has_not() -> None:
    ours = {rule.measure for rule in rules_of(GopherRepetition())}
    assert {rule.measure.partition("@")[0] for rule in rules_of(rule_set("gopher_repetition@dolma"))} == ours - {
        "dup_paragraph_ratio", "dup_paragraph_char_ratio",
    }  # fmt: skip
    for dialect in ("datatrove", "dclm", "nemo"):
        assert {rule.measure.partition("@")[0] for rule in rules_of(rule_set(f"gopher_repetition@{dialect}"))} == ours


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gopher", "there is no rule set 'gopher'; there are web_page, gopher_repetition"),
        ("c4@dclm", "rule set 'c4' has no dialects; those of Gopher and FineWeb have: datatrove, dclm, dolma, nemo"),
        ("gopher_quality@dclmm", "nobody reads this set as 'dclmm'; dialects are datatrove, dclm, dolma, nemo"),
        ("fineweb@dolma", "nobody reads this set as 'dolma'"),
    ],
)
def test_sets_that_are_none(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        rule_set(name)


def test_a_dialect_that_was_not_measured() -> None:
    with pytest.raises(
        UserError, match=r"needs the column 'words@dclm'; name the dialect, MeasureConfig\(dialects=\('dclm',\)\)"
    ):
        decide(table(GOOD), RulesConfig(gopher_quality=GopherQuality(dialect="dclm")))


def rule(kind: object, field: str) -> Rule:
    return next(rule for rule in rules_of(kind) if rule.name.endswith(f".{field}"))


def test_a_published_bound_is_that_of_the_language() -> None:
    """FineWeb-2's for German, the neutral one for a language that nobody has looked at, the published one for English."""
    published = rule(GopherQuality(), "max_mean_word_length")
    german, unknown = settings("de").bounds["max_mean_word_length"], settings("xx").bounds["max_mean_word_length"]
    assert 10.0 < german < unknown
    langs = ["en", "de", "deu", "de-AT", "xx", None, "zh"]
    expected = [10.0, german, german, german, unknown, unknown, None]  # words of Chinese have no length
    assert [bound_of(published, lang) for lang in langs] == expected
    rows = bounds_of(published, pa.array(langs, pa.string()))
    assert [None if math.isnan(bound) else bound for bound in rows.tolist()] == expected


def test_a_bound_of_ones_own_holds_for_every_language() -> None:
    own = rule(GopherQuality(max_mean_word_length=9.0, by_lang=()), "max_mean_word_length")
    assert {bound_of(own, lang) for lang in ("en", "de", "xx", "zh", None)} == {9.0}
    off = rule(GopherQuality(max_mean_word_length=None, by_lang=()), "max_mean_word_length")
    assert {bound_of(off, lang) for lang in ("en", "de", "xx", None)} == {None}


def test_by_lang_comes_before_all() -> None:
    by_lang = (("de", "min_words", 5.0), ("pt-BR", "min_words", 6.0), ("fr", "min_words", None))
    own = rule(GopherQuality(by_lang=by_lang), "min_words")
    assert [bound_of(own, lang) for lang in ("de", "de-CH", "deu", "pt-BR", "fr", "en")] == [5.0, 5.0, 5.0, 6.0, None, 50.0]


def test_the_bound_of_the_language_is_recorded() -> None:
    long = "Donaudampfschifffahrtsgesellschaftskapit\u00e4n " * 60
    cfg = RulesConfig(gopher_quality=GopherQuality(min_stop_words=None))
    found = decision(long, cfg, "de")
    assert found is not None
    assert found[0] == "gopher_quality.max_mean_word_length"
    assert found[2] == settings("de").bounds["max_mean_word_length"]


def test_own_rules_in_three_lines() -> None:
    cfg = MeasureConfig(keywords=(("gambling", ("casino", "free spins")),))
    docs = measure(record_batch({"text": ["Casino! Free spins in the casino.", "A garden."], "lang": ["en"] * 2}, RECORD), cfg)
    got = decide(docs, RulesConfig(extra=(Rule("mine.max_gambling", "keyword_gambling", "max", 2.0),)))
    assert got.select(["drop_rule", "drop_value", "drop_bound"]).to_pylist() == [
        {"drop_rule": "mine.max_gambling", "drop_value": 3.0, "drop_bound": 2.0},
        {"drop_rule": None, "drop_value": None, "drop_bound": None},
    ]
