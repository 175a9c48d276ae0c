"""What the model is: part of trainer.config, which hands it on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LinearScaling:
    """Rotary positions divided by `factor` (arXiv 2306.15595)."""

    factor: float


@dataclass(frozen=True)
class Llama3Scaling:
    """Rotary frequencies as Llama 3.1 stretches them: the slow ones divided by `factor`, the fast ones kept.

    Slow turns less than `low` times in `original_length` tokens, fast more than `high` times; between them it is interpolated.
    """

    factor: float = 8.0
    low: float = 1.0
    high: float = 4.0
    original_length: int = 8192

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"low {self.low} must lie below high {self.high}: they bound what is interpolated")


def ntk_base(base: float, factor: float, head_size: int) -> float:
    """The base that slows the slowest rotary frequency by `factor`, the fastest not at all (arXiv 2309.00071, section 3.1)."""
    return float(base * factor ** (head_size / (head_size - 2)))


@dataclass(frozen=True)
class Experts:
    """A mixture-of-experts feed-forward: `count` of them, each of the model's `feed_forward` width, `chosen` for each token.

    The load is balanced within a micro-batch on a rank, so here the layout does change what is learned, a little.
    """

    count: int
    chosen: int = 2
    balance: float = 0.01  # weight of the load-balancing loss (Switch Transformers, arXiv 2101.03961, section 2.2)

    def __post_init__(self) -> None:
        if not 1 <= self.chosen <= self.count:
            raise ValueError(f"{self.chosen} experts cannot be chosen of {self.count}")


@dataclass(frozen=True)
class ModelConfig:
    """A Llama-style decoder. `vocab_size` may exceed the tokenizer's (padding rows are then never a target)."""

    vocab_size: int
    width: int
    layers: int
    heads: int
    kv_heads: int
    feed_forward: int
    rope_base: float = 500_000.0
    norm_eps: float = 1e-5
    init_std: float = 0.02
    document_mask: bool = True  # a token attends within its own document only (Llama 3, section 3.2)
    rope_scaling: LinearScaling | Llama3Scaling | None = None  # another base: `ntk_base`
    experts: Experts | None = None  # None: one feed-forward for all tokens
    prefix_lm: bool = False  # tokens of a document before its first target see each other both ways (T5, section 3.2.1)
    embedding_gradient: float = 1.0  # share of the embedding's gradient that is kept (GLM-130B, section 2.3: 0.1)

    def __post_init__(self) -> None:
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(f"width {self.width} does not give {self.heads} heads of an even size")
        if self.heads % self.kv_heads:
            raise ValueError(f"{self.heads} heads cannot share {self.kv_heads} key-value heads evenly")
        if self.prefix_lm and not self.document_mask:
            raise ValueError("prefix_lm gives each document a prefix; set document_mask=True too")
        for name, kinds in (("rope_scaling", (LinearScaling, Llama3Scaling)), ("experts", (Experts,))):
            value = getattr(self, name)
            if value is not None and not isinstance(value, kinds):
                raise ValueError(
                    f"{name} is {' or '.join(k.__name__ for k in kinds)} or None, not {value!r}; write it in a recipe"
                )

    @property
    def head_size(self) -> int:
        """Channels of one attention head."""
        return self.width // self.heads

    def parameters(self) -> int:
        """Number of parameters, by formula: input and output embeddings are separate."""
        return self._count(self.experts.count if self.experts else 1)

    def active_parameters(self) -> int:
        """Those that a token meets, which is what its arithmetic depends on: all but the experts not chosen."""
        return self._count(self.experts.chosen if self.experts else 1)

    def _count(self, feed_forwards: int) -> int:
        attention = 2 * self.width * self.width + 2 * self.width * self.kv_heads * self.head_size
        router = self.experts.count * self.width if self.experts else 0
        block = attention + feed_forwards * 3 * self.width * self.feed_forward + router + 2 * self.width
        return 2 * self.vocab_size * self.width + self.layers * block + self.width
