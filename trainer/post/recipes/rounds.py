"""Several rounds of post-training: see trainer.post.rounds."""

from trainer.post.rounds import Rounds


def llama3_rounds() -> Rounds:
    """Six rounds (section 4.1.6), ten answers a prompt (section 4.2.2), the best model of each goes on."""
    return Rounds("llama3_reward", "llama3_sft", "llama3_dpo", rounds=6, samples=10, average=2)
