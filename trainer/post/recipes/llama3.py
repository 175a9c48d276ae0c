"""Llama 3's post-training (arXiv 2407.21783, section 4.1): reward model, fine-tuning at 1e-5, DPO at 1e-5. The rest is ours."""

from trainer.config import Cosine, LearningRate, Run
from trainer.post.config import Post
from trainer.post.losses import Preference


def llama3_sft() -> Post:
    """1e-5 (section 4.1.3)."""
    rate = LearningRate(peak=1e-5, warmup_steps=50, shape=Cosine(final=0.1))
    return Post("llama3_sft", rate, batch=128, epochs=2, run=Run(evaluate_every=50))


def llama3_reward() -> Post:
    """Pairs of all ratings, edited answers too, without the margin term that Llama 2 had (section 4.1.2)."""
    rate = LearningRate(peak=1e-5, warmup_steps=20, shape=Cosine(final=0.1))
    return Post("llama3_reward", rate, batch=128)


def llama3_dpo() -> Post:
    """1e-5, beta 0.1, format tokens masked, 0.2 of the likelihood of the chosen answer (section 4.1.4)."""
    rate = LearningRate(peak=1e-5, warmup_steps=20, shape=Cosine(final=0.1))
    return Post("llama3_dpo", rate, batch=128, preference=Preference(beta=0.1, nll=0.2, format_mask=True))
