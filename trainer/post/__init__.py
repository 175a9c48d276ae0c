"""Post-training on the trainer's session: SFT, reward model, preferences, adapters, rounds; generation, rejection, PPO, GRPO.

trainer.post may use trainer, never the reverse.
"""
