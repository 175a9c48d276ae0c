"""Llama 3 8B, 70B and 405B (arXiv 2407.21783, table 3 and section 3.4.1): cosine to a hundredth, annealing to zero at the end.

The schedule that goes with it raises the batch and the sequence length by phases and ends with a phase named `annealing`.
"""

from trainer.config import Cosine, LearningRate, ModelConfig, OptimizerConfig, Parallel, TrainConfig


def _llama3(name: str, width: int, layers: int, heads: int, feed_forward: int, peak: float, micro_batch: int) -> TrainConfig:
    return TrainConfig(
        name=name,
        model=ModelConfig(
            vocab_size=128_256,
            width=width,
            layers=layers,
            heads=heads,
            kv_heads=8,
            feed_forward=feed_forward,
            rope_base=500_000.0,
            norm_eps=1e-5,
            init_std=0.02,
            document_mask=True,
        ),
        learning_rate=LearningRate(peak=peak, warmup_steps=8000, shape=Cosine(final=0.01), anneal_phase="annealing"),
        optimizer=OptimizerConfig(betas=(0.9, 0.95), weight_decay=0.1, clip=1.0),
        parallel=Parallel(micro_batch=micro_batch, recompute="full", compile=True),
    )


def llama3() -> TrainConfig:
    """The 8B model."""
    return _llama3("llama3_8b", 4096, 32, 32, 14_336, 3e-4, micro_batch=2)


def llama3_70b() -> TrainConfig:
    """The 70B model."""
    return _llama3("llama3_70b", 8192, 80, 64, 28_672, 1.5e-4, micro_batch=1)


def llama3_405b() -> TrainConfig:
    """The 405B model."""
    return _llama3("llama3_405b", 16_384, 126, 128, 53_248, 8e-5, micro_batch=1)
