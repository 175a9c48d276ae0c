"""The base of `bench.prove_post`: a small model, trained on the prose in two minutes of a large GPU; a smaller one without."""

from dataclasses import replace

from trainer.config import LearningRate, ModelConfig, Parallel, Run, TrainConfig, WarmupStableDecay


def base() -> TrainConfig:
    """40 M parameters, 24 M of them in the blocks."""
    return TrainConfig(
        name="base",
        model=ModelConfig(vocab_size=16_384, width=512, layers=8, heads=8, kv_heads=4, feed_forward=1408),
        learning_rate=LearningRate(peak=1.5e-3, warmup_steps=100, shape=WarmupStableDecay(decay=0.2)),
        parallel=Parallel(micro_batch=16, compile=True, loss_chunk=4096),
        run=Run(evaluate_every=200, save_every_steps=10_000, trackers=()),
    )


def laptop() -> TrainConfig:
    """5 M parameters, 0.9 M of them in the blocks: 100 of its steps are a quarter of an hour of two cores."""
    model = ModelConfig(vocab_size=16_384, width=128, layers=4, heads=4, kv_heads=2, feed_forward=384)
    rate = LearningRate(peak=3e-3, warmup_steps=40, shape=WarmupStableDecay(decay=0.2))
    return replace(base(), model=model, learning_rate=rate, parallel=Parallel(micro_batch=8, loss_chunk=2048))
