"""The demo: a model small enough to learn something on two CPU cores in two minutes."""

from trainer.config import LearningRate, ModelConfig, MultiStep, OptimizerConfig, Parallel, Prompt, Run, TrainConfig


def demo() -> TrainConfig:
    """About 3 M parameters; warm-up, multi-step, then the schedule's phase `annealing` down to zero."""
    return TrainConfig(
        name="demo",
        model=ModelConfig(
            vocab_size=8192, width=128, layers=4, heads=4, kv_heads=2, feed_forward=384, rope_base=500_000.0, init_std=0.02
        ),
        learning_rate=LearningRate(
            peak=3e-3, warmup_steps=20, shape=MultiStep(((0.8, 0.316), (0.9, 0.1))), anneal_phase="annealing"
        ),
        optimizer=OptimizerConfig(betas=(0.9, 0.95), weight_decay=0.1, clip=1.0),
        parallel=Parallel(micro_batch=8, loss_chunk=1024),
        run=Run(
            evaluate_every=100,
            prompts=(Prompt("en", "The most important part of"), Prompt("zh", "\u8fd9\u4e2a\u7a0b\u5e8f\u7684")),
        ),
    )
