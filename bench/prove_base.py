"""The base of `bench.prove_post`: a small model, trained on the prose in about two minutes of one large GPU."""

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
