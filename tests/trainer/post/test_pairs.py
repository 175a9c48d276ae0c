"""From shards with roles to what is compared: pairs, masks and the reference, token by token."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipelines.shards import Shards
from pipelines.shards.roles import BETTER, EDITED, LAST, MARGINALLY
from trainer.data import MicroBatch, pack
from trainer.model import Head
from trainer.post import losses
from trainer.post.dpo import answers, judged_objective, pair_objective
from trainer.post.losses import Preference
from trainer.post.pairs import Loader, Pairs, find_judged, find_pairs, likeness
from trainer.post.reward import RATINGS, ends, margins, pair_rewards, rating_sums
from trainer.post.start import held_out_rows

from .conftest import ASK, END, EOS, REPLY, document, judgement, random_model, sequence, write_chat

ASKED = ([5, 6], [7, 8])  # an earlier turn, which is given
PAIR = document(sequence([ASKED, ([9], [10, 11, 12])], BETTER), sequence([ASKED, ([9], [13, 14])], LAST))
EDIT = document(
    *(sequence([([9], answer)], grade) for answer, grade in (([10, 12], EDITED), ([10, 11], MARGINALLY), ([13], LAST)))
)


def micro_of(folder: Path, documents: list[tuple[list[int], list[int]]], length: int = 64) -> MicroBatch:
    rows = held_out_rows(Shards(write_chat(folder, {"s": (documents, [])})), "s", length, 10**6, "train")
    return pack(rows, len(rows), length, with_roles=True)


def paired(micro: MicroBatch) -> Pairs:
    return Loader(lambda micro: micro).paired(micro, [])


def test_the_last_answers_are_compared_and_nothing_that_was_given_counts(tmp_path: Path) -> None:
    micro = paired(micro_of(tmp_path, [PAIR]))
    first = [ASK, 5, 6, END, REPLY, 7, 8, END, ASK, 9, END, REPLY, 10, 11, 12, END, EOS]
    second = [ASK, 5, 6, END, REPLY, 7, 8, END, ASK, 9, END, REPLY, 13, 14, END, EOS]
    assert micro.inputs[0, : len(first + second)].tolist() == first + second
    assert micro.cu_seqlens.tolist() == [0, 17, 33, 64]
    assert micro.pairs.tolist() == [[0, 1, BETTER]]
    targets = [-100] * 11 + [10, 11, 12, END, -100, -100] + [-100] * 11 + [13, 14, END, -100, -100]
    assert micro.targets[0, :33].tolist() == targets
    model = random_model()
    losses_T = model.losses(micro.inputs, micro.targets, micro.documents)[0].detach()
    compared, whole = answers(model, micro, format_mask=True)
    assert compared.tokens.tolist() == [3, 2, 0]  # without the terminators
    assert whole.tokens.tolist() == [4, 3, 0]
    torch.testing.assert_close(compared.log_p.detach()[:2], -torch.stack([losses_T[11:14].sum(), losses_T[28:30].sum()]))
    torch.testing.assert_close(whole.log_p.detach()[:2], -torch.stack([losses_T[11:15].sum(), losses_T[28:31].sum()]))
    assert ends(micro).tolist() == [15, 31, 63]  # terminators
    without = Preference(nll=0.2)
    loss = pair_objective(without, model, micro, 1.0)[0].detach()
    margin = 0.1 * (compared.ratio[0] - compared.ratio[1])
    torch.testing.assert_close(loss, (-torch.nn.functional.logsigmoid(margin) + 0.2 * losses_T[11:15].mean()).detach())


def test_an_edited_answer_is_better_than_the_chosen_one_and_that_than_the_rejected(tmp_path: Path) -> None:
    micro = paired(micro_of(tmp_path, [EDIT, PAIR]))
    grades = sorted(grade for _, _, grade in micro.pairs.tolist())
    assert grades == sorted([EDITED, EDITED, MARGINALLY, BETTER])
    model = random_model()
    model.lm_head = Head(32, 1, bias=False)
    with torch.no_grad():
        better, other = pair_rewards(model, micro)
        sums = rating_sums(model, micro, 1.0).tolist()
    count = dict(zip(RATINGS, sums[3 : 3 + 2 * len(RATINGS) : 2], strict=True))
    right = dict(zip(RATINGS, sums[4 : 4 + 2 * len(RATINGS) : 2], strict=True))
    assert count == {"unrated": 0, "marginally": 1, "slightly": 0, "better": 1, "significantly": 0, "edited": 2}
    won = {name: float(sum((better > other)[micro.pairs[:, 2] == grade])) for name, grade in RATINGS.items()}
    assert right == won
    bins = np.array(sums[3 + 2 * len(RATINGS) :]).reshape(-1, 3)
    assert bins[:, 0].sum() == 4
    assert bins[:, 1].sum() == sum(won.values())
    assert bins[:, 2].sum() == pytest.approx(float(torch.sigmoid((better - other).abs()).sum()), abs=1e-5)


def test_a_margin_a_rating_is_llama_2s() -> None:
    from trainer.post.recipes.llama3 import llama3_reward

    assert margins(llama3_reward()).sum() == 0
    table = margins(replace(llama3_reward(), margins=(0.0, 0.3, 0.6, 1.0))).tolist()
    assert table[MARGINALLY : EDITED + 1] == pytest.approx([0, 0.3, 0.6, 1, 1])


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], 1.0),
        ([1, 2, 3, 4], [1, 2, 3, 5], 1 / 3),  # of trigrams 123, 234, 235
        ([1, 2], [2, 1], 0.0),
        ([1], [1], 1.0),
        ([], [], 1.0),
        ([], [1, 2, 3], 0.0),
    ],
)
def test_likeness_is_the_jaccard_similarity_of_trigrams(a: list[int], b: list[int], expected: float) -> None:
    assert likeness(a, b) == pytest.approx(expected)


def test_pairs_of_like_answers_are_left_out(tmp_path: Path) -> None:
    same = document(sequence([([9], [10, 11, 12])], BETTER), sequence([([9], [10, 11, 12])], LAST))
    micro = micro_of(tmp_path, [same, PAIR])
    assert len(find_pairs(micro)) == 2
    assert len(find_pairs(micro, alike=0.9)) == 1


def test_kto_learns_from_single_answers_and_from_both_of_a_pair(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    micro = micro_of(tmp_path, [judgement(random), judgement(random), PAIR])
    judged = find_judged(micro)
    assert len(judged) == 4
    assert sorted(judged[-2:, 1].tolist()) == [0, 1]
    made = Loader(lambda micro: micro, judged=True).paired(micro, [])
    model = random_model()
    reference = torch.full(micro.inputs.shape, -3.0)
    loss = judged_objective(Preference("kto", beta=0.5), model, replace(made, reference=reference), 4.0)[0].detach()
    compared = answers(model, replace(made, reference=reference), True)[0]
    ratio, good = compared.ratio.detach()[made.pairs[:, 0]], made.pairs[:, 1] > 0
    level = ratio.mean().clamp(min=0)
    expected = torch.where(good, 1 - torch.sigmoid(0.5 * (ratio - level)), 1 - torch.sigmoid(0.5 * (level - ratio)))
    torch.testing.assert_close(loss, expected.mean())


def test_constants_that_make_no_sense_are_refused() -> None:
    for values in ({"kind": "ppo"}, {"beta": 0.0}, {"smoothing": 0.5}, {"nll": -1.0}):
        with pytest.raises(ValueError, match=r"kind|beta"):
            Preference(**values)  # type: ignore[arg-type]


def test_the_odds_of_a_certain_answer_are_finite() -> None:
    certain = torch.zeros(1, requires_grad=True)
    loss = losses.odds_ratio(certain, torch.tensor([-1.0]))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
