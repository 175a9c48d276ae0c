import math
from dataclasses import replace

import pytest
import torch

from trainer import engine
from trainer.config import Experts, LinearScaling, Llama3Scaling, ModelConfig
from trainer.engine import Completion, Sampling, _rows, choose, generate, uniforms
from trainer.errors import UserError
from trainer.model import Decoder, init_weights

CPU = torch.device("cpu")
TINY = ModelConfig(vocab_size=50, width=32, layers=2, heads=4, kv_heads=2, feed_forward=64)
GREEDY = Sampling(temperature=0.0)
RANDOM = Sampling(temperature=1.0, top_p=0.9)
PROMPTS = [[7], [1, 2, 3, 4, 5], [9] * 40, [4, 3], [1, 2, 3, 4, 6], list(range(1, 30))]
SHAPES = {
    "grouped queries": TINY,
    "as many keys as queries": replace(TINY, kv_heads=4),
    "rotary scaling": replace(TINY, rope_scaling=Llama3Scaling(original_length=16)),
    "linear scaling": replace(TINY, rope_scaling=LinearScaling(4.0)),
    "prefix": replace(TINY, prefix_lm=True),
    "experts": replace(TINY, experts=Experts(4)),
}


def _model(cfg: ModelConfig = TINY, seed: int = 0) -> Decoder:
    model = Decoder(cfg)
    init_weights(model, 0.3, seed)  # far from uniform
    return model


def _recomputed(model: Decoder, prompt: list[int], limit: int, stops: set[int]) -> Completion:
    """Greedy, the whole sequence through the model for every token. A prefix model sees its prompt both ways."""
    tokens, logprobs = list[int](), list[float]()
    while len(tokens) < limit and not (tokens and tokens[-1] in stops):
        row = torch.tensor([prompt + tokens])
        targets = torch.full_like(row, -100)
        targets[0, len(prompt) - 1 :] = 0
        with torch.no_grad():
            logits = model.lm_head(model._states(row, None, targets != -100)[0])[0, -1]
        tokens.append(int(logits.argmax()))
        logprobs.append(float(logits.log_softmax(-1)[tokens[-1]]))
    return Completion(tuple(tokens), tuple(logprobs), tokens[-1] in stops)


def _same(some: list[Completion], others: list[Completion]) -> bool:
    return [c.tokens for c in some] == [c.tokens for c in others]


@pytest.mark.parametrize("cfg", SHAPES.values(), ids=SHAPES)
def test_greedy_answers_are_those_of_computing_all_of_it_for_each_token(cfg: ModelConfig) -> None:
    model = _model(cfg)
    made = [answers[0] for answers in generate(model, PROMPTS, 12, {3, 5}, GREEDY, CPU, rows=4)]
    for answer, prompt in zip(made, PROMPTS, strict=True):
        expected = _recomputed(model, prompt, 12, {3, 5})
        assert (answer.tokens, answer.ended) == (expected.tokens, expected.ended)
        assert answer.logprobs == pytest.approx(expected.logprobs, abs=1e-4)


@pytest.mark.parametrize("how", [{"rows": 1}, {"rows": 3}, {"rows": 64}, {"look": 4}, {"look": 5, "rows": 2}], ids=str)
@pytest.mark.parametrize("sampling", [RANDOM, replace(RANDOM, repetition_penalty=1.3, top_k=7)], ids=["top-p", "penalty"])
def test_an_answer_depends_on_seed_prompt_and_sample_alone(how: dict[str, int], sampling: Sampling) -> None:
    model = _model()
    alone = [generate(model, [p], 9, {3}, sampling, CPU, samples=3)[0] for p in PROMPTS]
    together = generate(model, PROMPTS, 9, {3}, sampling, CPU, samples=3, **how)
    assert all(map(_same, alone, together))
    assert len({answer.tokens for answer in together[1]}) == 3
    assert generate(model, PROMPTS[:2], 9, {3}, replace(sampling, seed=1), CPU)[0][0].tokens != together[0][0].tokens


def test_answers_end_at_a_stop_token_or_at_the_limit() -> None:
    answers = [a for some in generate(_model(), PROMPTS, 8, {3, 5, 8}, RANDOM, CPU, samples=8, look=3) for a in some]
    assert {answer.ended for answer in answers} == {True, False}
    for answer in answers:
        assert (answer.tokens[-1] in {3, 5, 8}) == answer.ended
        assert not {3, 5, 8} & set(answer.body)
        assert len(answer.body) + answer.ended == len(answer.tokens) == len(answer.logprobs)
        assert len(answer.tokens) == 8 or answer.ended
    assert [len(a[0].tokens) for a in generate(_model(), PROMPTS, 1, set(), GREEDY, CPU)] == [1] * 6


def test_a_prompt_is_computed_once_for_all_its_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[list[int]]] = []
    real = Decoder.next_logits

    def next_logits(self: Decoder, tokens: torch.Tensor, *more: object) -> torch.Tensor:
        if len(more) < 3:  # nothing comes before
            seen.append(tokens.tolist())
        return real(self, tokens, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(Decoder, "next_logits", next_logits)
    monkeypatch.setattr(engine, "PREFILL", 45)
    generate(_model(), PROMPTS, 4, set(), RANDOM, CPU, samples=5, rows=3)
    assert [row[0] for rows in seen for row in rows] == [p[0] for p in sorted(PROMPTS, key=len, reverse=True)]
    assert max(len(rows) * len(rows[0]) for rows in seen) <= 45


def test_ids_past_the_vocabulary_are_never_chosen_and_an_empty_prompt_is_refused() -> None:
    answers = generate(_model(), PROMPTS, 20, set(), RANDOM, CPU, vocab_size=10)
    assert {token for answer in answers for token in answer[0].tokens} <= set(range(10))
    with pytest.raises(UserError, match="prompt 1 has no tokens"):
        generate(_model(), [[1], []], 4, set(), GREEDY, CPU)
    assert generate(_model(), [], 4, set(), GREEDY, CPU) == []


@pytest.mark.parametrize(
    ("sampling", "possible"),
    [
        (Sampling(0.0, 1.0), {1}),
        (Sampling(1.0, 0.5), {1}),
        (Sampling(1.0, 0.7), {1, 3}),
        (Sampling(1.0, 1.0), {0, 1, 2, 3}),
        (Sampling(0.01, 1.0), {1}),
        (Sampling(1.0, 1.0, top_k=2), {1, 3}),
        (Sampling(1.0, 0.6), {1, 3}),
        (Sampling(1.0, 0.6, top_k=3), {1}),
        (Sampling(1.0, 1.0, top_k=99), {0, 1, 2, 3}),
    ],
    ids=str,
)
def test_sampling_keeps_the_smallest_set_of_that_probability(sampling: Sampling, possible: set[int]) -> None:
    probability = torch.tensor([0.1, 0.55, 0.1, 0.25])
    uniform = torch.linspace(0, 1 - 2**-24, 1001)
    drawn = choose(probability.log().expand(1001, 4), uniform, sampling)
    assert set(drawn.tolist()) == possible
    if sampling.temperature == 1:
        share = torch.bincount(drawn, minlength=4) / 1001
        expected = torch.tensor([p if i in possible else 0.0 for i, p in enumerate(probability.tolist())])
        torch.testing.assert_close(share, expected / expected.sum(), atol=2e-3, rtol=0)


def test_a_repetition_penalty_works_on_both_signs_of_a_logit() -> None:
    logits, seen = torch.tensor([[2.0, 1.5, -1.0], [-1.0, -1.2, -3.0]]), torch.tensor([[True, False, True]] * 2)
    assert choose(logits, torch.zeros(2), Sampling(0.0, repetition_penalty=1.5), seen).tolist() == [1, 1]
    assert choose(logits, torch.zeros(2), Sampling(0.0, repetition_penalty=1.1), seen).tolist() == [0, 0]


def test_random_numbers_are_those_of_their_place() -> None:
    assert uniforms(1, [2, 3], 4, 6).tolist() == uniforms(1, [2, 3], 4, 9)[:6].tolist()
    different = {tuple(uniforms(*what, 4)) for what in ((1, [2, 3], 4), (1, [23], 4), (2, [2, 3], 4), (1, [2, 3], 5))}
    assert len(different) == 4
    assert math.isclose(float(uniforms(0, [1], 0, 100_000).mean()), 0.5, abs_tol=0.005)


@pytest.mark.parametrize("values", [{"temperature": -1.0}, {"top_p": 0.0}, {"top_k": -1}, {"repetition_penalty": 0.0}], ids=str)
def test_impossible_sampling_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(UserError, match="must be 0 or more"):
        Sampling(**values)  # type: ignore[arg-type]


def test_a_decoding_step_is_one_graph_for_each_extent(monkeypatch: pytest.MonkeyPatch) -> None:
    """What CUDA graphs need; here the graphs are run by Python."""
    graphs = list[int]()

    def backend(graph: torch.fx.GraphModule, inputs: object) -> object:
        graphs.append(1)
        return graph.forward

    monkeypatch.setattr(engine, "EXTENT", 8)
    compiled = torch.compile(engine._step, dynamic=False, fullgraph=True, backend=backend)
    monkeypatch.setattr(engine, "_compiled_step", lambda: compiled)
    plain = generate(_model(), PROMPTS[:2], 20, set(), RANDOM, CPU, samples=2)
    assert all(map(_same, generate(_model(), PROMPTS[:2], 20, set(), RANDOM, CPU, samples=2, compiled=True), plain))
    assert len(graphs) == 3  # up to 8, 16 and 32 positions


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_a_gpu_gives_the_same_answers_with_captured_graphs_and_without() -> None:
    device = torch.device("cuda")
    model = _model().to(device)
    greedy = generate(model, PROMPTS, 12, {3, 5}, GREEDY, device, rows=4)
    assert all(map(_same, greedy, generate(_model(), PROMPTS, 12, {3, 5}, GREEDY, CPU)))
    plain = generate(model, PROMPTS, 40, set(), RANDOM, device, samples=2)
    assert all(map(_same, plain, generate(model, PROMPTS, 40, set(), RANDOM, device, samples=2, compiled=True)))


def test_how_many_answers_are_under_way_follows_from_sizes() -> None:
    small = ModelConfig(vocab_size=64, width=64, layers=2, heads=4, kv_heads=2, feed_forward=128)
    large = ModelConfig(vocab_size=64, width=4096, layers=32, heads=32, kv_heads=8, feed_forward=128)
    assert _rows(small, 2000, CPU) == 256
    assert _rows(large, 2000, torch.device("cuda")) == (1 << 32) // (2 * 32 * 8 * 128 * 2048) == 32
    assert _rows(large, 2000, CPU) == 16
