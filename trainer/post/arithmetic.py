"""Made arithmetic with checkable answers, a task that a small model can learn: conversations as the recipe chat reads them.

python -m trainer.post.arithmetic OUT.jsonl [--largest 20] [--seed 0]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

# By language: how a sum and a difference are asked.
QUESTIONS = {
    "en": {"+": "What is {a} + {b}?", "-": "What is {a} - {b}?"},
    "zh": {"+": "{a} \u52a0 {b} \u662f\u591a\u5c11\uff1f", "-": "{a} \u51cf {b} \u662f\u591a\u5c11\uff1f"},
}


def problems(largest: int, seed: int, langs: Sequence[str] = tuple(QUESTIONS)) -> list[dict[str, object]]:
    """Every sum and difference of numbers from 0 to `largest` with a result from 0, in each language, shuffled.

    Each as {id, lang, messages}; the answer is the number alone.
    """
    made: list[dict[str, object]] = []
    for lang in langs:
        for a in range(largest + 1):
            for b in range(largest + 1):
                for sign, result in (("+", a + b), ("-", a - b)):
                    if result >= 0:
                        question = QUESTIONS[lang][sign].format(a=a, b=b)
                        turns = [{"role": "user", "content": question}, {"role": "assistant", "content": str(result)}]
                        made.append({"id": f"{lang} {a}{sign}{b}", "lang": lang, "messages": turns})
    random.Random(seed).shuffle(made)
    return made


def write(path: Path, some: Sequence[dict[str, object]]) -> None:
    """One JSON line each."""
    path.write_text("".join(json.dumps(problem, ensure_ascii=False) + "\n" for problem in some), encoding="utf-8")


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m trainer.post.arithmetic", description="Made arithmetic as conversations.")
    parser.add_argument("out", type=Path, metavar="OUT.jsonl")
    parser.add_argument("--largest", type=int, default=20, help="numbers from 0 to this (20)")
    parser.add_argument("--seed", type=int, default=0, help="of their order")
    args = parser.parse_args(arguments)
    write(args.out, problems(args.largest, args.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
