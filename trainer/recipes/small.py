"""Small models for ablations and for a few GPUs: Llama 3's block, warm-up-stable-decay, so that a run can be prolonged.

From 125 M up the rates follow the fit of DeepSeek LLM (arXiv 2401.02954, section 3.1) at about 100 tokens a parameter, rounded.
"""

from trainer.config import LearningRate, ModelConfig, Parallel, TrainConfig, WarmupStableDecay


def _small(name: str, model: ModelConfig, peak: float, micro_batch: int, compiled: bool = True) -> TrainConfig:
    return TrainConfig(
        name=name,
        model=model,
        learning_rate=LearningRate(peak, warmup_steps=500, shape=WarmupStableDecay(decay=0.1)),
        parallel=Parallel(micro_batch=micro_batch, compile=compiled, loss_chunk=4096),
    )


def tiny() -> TrainConfig:
    """13 M parameters: learns on a laptop."""
    model = ModelConfig(vocab_size=16_384, width=256, layers=6, heads=8, kv_heads=4, feed_forward=704)
    return _small("tiny", model, 2e-3, micro_batch=16, compiled=False)


def llama_125m() -> TrainConfig:
    """126 M parameters, 76 M of them in the blocks."""
    model = ModelConfig(vocab_size=32_768, width=768, layers=12, heads=12, kv_heads=4, feed_forward=2048)
    return _small("llama_125m", model, 1.3e-3, micro_batch=16)


def llama_1b() -> TrainConfig:
    """1.02 G parameters."""
    model = ModelConfig(vocab_size=65_536, width=2048, layers=16, heads=16, kv_heads=8, feed_forward=5632)
    return _small("llama_1b", model, 8e-4, micro_batch=4)


def llama_1_7b() -> TrainConfig:
    """1.66 G parameters with Llama 3's vocabulary: the shape of the speed benchmark."""
    model = ModelConfig(vocab_size=128_256, width=2048, layers=24, heads=16, kv_heads=8, feed_forward=5632)
    return _small("llama_1_7b", model, 7e-4, micro_batch=4)
