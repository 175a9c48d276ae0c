"""DeepSeek LLM 7B and 67B (arXiv 2401.02954, sections 2.2 to 2.4): multi-step rate, small initial weights, depth over width.

The schedule that goes with it: one phase of 2 T tokens, sequence length 4,096, batches of 2,304 (7B) or 4,608 (67B) sequences.
"""

from dataclasses import replace

from trainer.config import LearningRate, ModelConfig, MultiStep, OptimizerConfig, Parallel, TrainConfig


def deepseek_llm() -> TrainConfig:
    """The 7B model: plain multi-head attention."""
    return TrainConfig(
        name="deepseek_llm_7b",
        model=ModelConfig(
            vocab_size=102_400,
            width=4096,
            layers=30,
            heads=32,
            kv_heads=32,
            feed_forward=11_008,
            rope_base=10_000.0,
            norm_eps=1e-6,
            init_std=0.006,
            document_mask=False,
        ),
        learning_rate=LearningRate(peak=4.2e-4, warmup_steps=2000, shape=MultiStep(((0.8, 0.316), (0.9, 0.1)))),
        optimizer=OptimizerConfig(betas=(0.9, 0.95), weight_decay=0.1, clip=1.0),
        parallel=Parallel(micro_batch=2, recompute="selective", compile=True),
    )


def deepseek_llm_67b() -> TrainConfig:
    """The 67B model: grouped-query attention, 95 layers."""
    small = deepseek_llm()
    return replace(
        small,
        name="deepseek_llm_67b",
        model=replace(small.model, width=8192, layers=95, heads=64, kv_heads=8, feed_forward=22_016),
        learning_rate=replace(small.learning_rate, peak=3.2e-4),
        parallel=replace(small.parallel, micro_batch=1),
    )
