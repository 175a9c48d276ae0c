import pytest

from pipelines.dedup.minhash import MinhashConfig, hit_probability
from pipelines.dedup.near import NearConfig, near_duplicates
from pipelines.dedup.settings import SETTINGS
from pipelines.errors import UserError
from pipelines.recipe import Recipe, Stage, with_settings


def recipe() -> Recipe:
    return Recipe("test", (), (Stage(near_duplicates, NearConfig()),))


def minhash_after(*settings: str) -> MinhashConfig:
    return with_settings(recipe(), list(settings)).stages[0].cfg.minhash


@pytest.mark.parametrize(
    ("name", "bands", "rows", "ngram", "unit"),
    [
        ("fineweb", 14, 8, 5, "auto"),
        ("14x8", 14, 8, 5, "auto"),
        ("nemo", 20, 13, 24, "char"),
        ("20x13", 20, 13, 24, "char"),
        ("26x11", 26, 11, 5, "auto"),
        ("marin", 26, 11, 5, "char"),
        ("14x9", 14, 9, 13, "auto"),
        ("9x13", 9, 13, 13, "auto"),
        ("25x10", 25, 10, 5, "auto"),
        ("450x20", 450, 20, 5, "auto"),
        ("93x15", 93, 15, 5, "auto"),
        ("20x5", 20, 5, 5, "auto"),
    ],
)
def test_published_settings_by_name_and_by_bands_x_rows(name, bands, rows, ngram, unit):
    assert MinhashConfig.named(name) == MinhashConfig(bands, rows, ngram, unit)


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_a_valid_config_and_says_where_it_is_from(name):
    cfg = MinhashConfig.named(name)
    assert MinhashConfig.named(f"{cfg.bands}x{cfg.rows}").bands == cfg.bands
    assert len(SETTINGS[name].source) > 10


# the chance of a pair to be found, as 1 - (1 - s**rows)**bands has it; FineWeb's and RefinedWeb's papers print theirs
@pytest.mark.parametrize(
    ("name", "jaccard", "expected"),
    [
        ("fineweb", 0.75, 0.772),
        ("fineweb", 0.85, 0.988),
        ("nemo", 0.8, 0.677),
        ("26x11", 0.8, 0.903),
        ("14x9", 0.7, 0.438),
        ("9x13", 0.8, 0.399),
        ("25x10", 0.7, 0.511),
        ("refinedweb", 0.75, 0.761),
        ("refinedweb", 0.8, 0.995),
    ],
)
def test_their_curves(name, jaccard, expected):
    assert hit_probability(jaccard, MinhashConfig.named(name)) == pytest.approx(expected, abs=6e-4)


@pytest.mark.parametrize("name", ["26x12", "Fineweb", "", "14 x 8"])
def test_an_unknown_name_is_refused_with_the_known_ones(name):
    with pytest.raises(ValueError, match=r"no published MinHash setting .*fineweb \(14x8\), nemo \(20x13\)"):
        MinhashConfig.named(name)


@pytest.mark.parametrize(
    ("threshold", "permutations", "bands", "rows"),
    [(0.7, 128, 14, 9), (0.8, 128, 9, 13), (0.7, 256, 25, 10)],  # RedPajama v2, BigCode
)
def test_bands_for_a_threshold_are_datasketch_s_optimum(threshold, permutations, bands, rows):
    cfg = MinhashConfig.for_threshold(threshold, permutations)
    assert (cfg.bands, cfg.rows) == (bands, rows)


def test_weights_move_the_curve():
    strict = MinhashConfig.for_threshold(0.8, 128, false_positive_weight=0.9, false_negative_weight=0.1)
    loose = MinhashConfig.for_threshold(0.8, 128, false_positive_weight=0.1, false_negative_weight=0.9)
    assert hit_probability(0.8, strict) < hit_probability(0.8, MinhashConfig.for_threshold(0.8)) < hit_probability(0.8, loose)


@pytest.mark.parametrize(("threshold", "weights"), [(1.5, (0.5, 0.5)), (-0.1, (0.5, 0.5)), (0.8, (0.9, 0.9))])
def test_an_impossible_threshold_is_refused(threshold, weights):
    with pytest.raises(ValueError, match=r"[Tt]hreshold|[Ww]eight"):
        MinhashConfig.for_threshold(threshold, 128, *weights)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["near_duplicates.minhash=26x11"], MinhashConfig(26, 11)),
        (["near_duplicates.minhash=nemo"], MinhashConfig(20, 13, 24, "char")),
        (["near_duplicates.minhash=26x11", "near_duplicates.minhash.seed=7"], MinhashConfig(26, 11, seed=7)),
        (["near_duplicates.minhash.scheme=datasketch"], MinhashConfig(scheme="datasketch")),
    ],
)
def test_set_takes_a_name(settings, expected):
    assert minhash_after(*settings) == expected


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("near_duplicates.minhash=26x12", "no published MinHash setting '26x12'; known are fineweb"),
        ("near_duplicates.minhash=3", "minhash is MinhashConfig"),
        ("near_duplicates.minhash.scheme=sha", "scheme is 'sha'; it must be one of headrace, datasketch"),
        ("near_duplicates.minhash.unit=byte", "unit is 'byte'; it must be one of auto, word, char"),
    ],
)
def test_set_refuses_what_there_is_not(setting, message):
    with pytest.raises(UserError, match=message) as error:
        minhash_after(setting)
    assert setting in str(error.value)
