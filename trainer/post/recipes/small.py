"""Post-training of a small model on one GPU or a laptop: rates as the size asks for, everything else as Llama 3's recipes."""

from dataclasses import replace

from trainer.config import Cosine, LearningRate, Parallel, Run
from trainer.post.config import Post
from trainer.post.losses import Preference
from trainer.post.policy import Online

_PARALLEL = Parallel(micro_batch=8, loss_chunk=4096)
_RUN = Run(evaluate_every=50, trackers=())


def small_sft() -> Post:
    """Three epochs at 3e-4."""
    rate = LearningRate(peak=3e-4, warmup_steps=10, shape=Cosine(final=0.1))
    return Post("small_sft", rate, batch=32, epochs=3, parallel=_PARALLEL, run=_RUN)


def small_reward() -> Post:
    """Two epochs at 1e-4."""
    rate = LearningRate(peak=1e-4, warmup_steps=10, shape=Cosine(final=0.1))
    return Post("small_reward", rate, batch=32, epochs=2, parallel=_PARALLEL, run=_RUN)


def small_dpo() -> Post:
    """Two epochs at 3e-5, with NLL at .5: at Llama 3's .2 a small model's answers chosen sink with those rejected."""
    rate = LearningRate(peak=3e-5, warmup_steps=10, shape=Cosine(final=0.1))
    return Post("small_dpo", rate, batch=32, epochs=2, preference=Preference(nll=0.5), parallel=_PARALLEL, run=_RUN)


def small_grpo() -> Post:
    """32 prompts a step, eight answers to each, one update on them."""
    rate = LearningRate(peak=1e-4, warmup_steps=5, shape=Cosine(final=1.0))
    return Post("small_grpo", rate, batch=32, epochs=5, online=Online(limit=64), parallel=_PARALLEL, run=_RUN)


def small_ppo() -> Post:
    """The same with a critic: two passes over the answers, less of a penalty for moving away."""
    online = Online(limit=64, passes=2, kl=0.02, value=0.5)
    return replace(small_grpo(), name="small_ppo", online=online)
