"""DeepSeek LLM's fine-tuning and DPO (arXiv 2401.02954, section 5). What the paper does not say is marked.

Its repetition rate grew with the share of mathematics; `deepseek_llm_two_stage` is the cure that held the benchmarks.
"""

from dataclasses import replace

from trainer.config import Cosine, LearningRate, Run
from trainer.post.config import Post, Stage
from trainer.post.losses import Preference


def deepseek_llm_sft() -> Post:
    """The 7B model: four epochs at 1e-5. Batch and shape of the rate are ours: 256 conversations, level after a warm-up."""
    rate = LearningRate(peak=1e-5, warmup_steps=50, shape=Cosine(final=1.0))
    return Post("deepseek_llm_7b_sft", rate, batch=256, epochs=4, run=Run(evaluate_every=50))


def deepseek_llm_67b_sft() -> Post:
    """The 67B model: two epochs at 5e-6, since more overfits."""
    small = deepseek_llm_sft()
    return replace(small, name="deepseek_llm_67b_sft", epochs=2, learning_rate=replace(small.learning_rate, peak=5e-6))


def deepseek_llm_two_stage() -> Post:
    """All data first, mathematics and code among them, then conversation alone, from sources of these names (section 5.4)."""
    stages = Stage("all", {"*": 4}), Stage("conversation", {"*chat*": 2})
    return replace(deepseek_llm_sft(), name="deepseek_llm_two_stage", stages=stages)


def deepseek_llm_dpo() -> Post:
    """One epoch at 5e-6, 512 pairs a step, warm-up and cosine. beta, and that format tokens count, are DPO's own."""
    rate = LearningRate(peak=5e-6, warmup_steps=10, shape=Cosine(final=0.0))
    return Post("deepseek_llm_dpo", rate, batch=512, preference=Preference(beta=0.1, format_mask=False))
