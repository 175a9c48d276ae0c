"""What a token is in a conversation: one byte a token, from which every mask of post-training follows.

    bits 0-3   the part that the token is of                bits 4-7   the grade of its turn
    0 NONE        eos after a sequence; text, padding       0  CONTEXT        given, never learnt
    1 SYSTEM      what the system says, tools among it      1  ANSWER         of a conversation: to be learnt
    2 USER        what the user says                        2  UNRATED        preferred to the next answer, by how
    3 ASSISTANT   what the assistant says                                     much is not known
    4 TOOL_CALL   what the assistant asks of a tool         3  MARGINALLY     better than the next answer
    5 TOOL        what a tool gives back                    4  SLIGHTLY       better than the next answer
    6 HEADER      opens a turn, says whose it is            5  BETTER         than the next answer
    7 TERMINATOR  ends a turn                               6  SIGNIFICANTLY  better than the next answer
                                                            7  EDITED         a person's correction of the next answer
                                                            8  LAST           the least of its document
                                                            9, 10             GOOD, BAD: judged by itself

A *sequence* is the turns of a conversation and an eos (code 0). A document with a conversation to learn is one sequence, in
which all turns of the assistant are answers. A document with a preference is a sequence an answer, prompt and answer each,
the best first and the LAST at the end: edited > chosen > rejected is three sequences in a row, which make three pairs. So a
document is packed, moved, traced and taken down as a whole, and no index of pairs is needed beside the tokens.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

NONE: Final = 0
SYSTEM: Final = 1
USER: Final = 2
ASSISTANT: Final = 3
TOOL_CALL: Final = 4
TOOL: Final = 5
HEADER: Final = 6
TERMINATOR: Final = 7

CONTEXT: Final = 0
ANSWER: Final = 1
UNRATED: Final = 2
MARGINALLY: Final = 3
SLIGHTLY: Final = 4
BETTER: Final = 5
SIGNIFICANTLY: Final = 6
EDITED: Final = 7
LAST: Final = 8
GOOD: Final = 9
BAD: Final = 10

Codes = npt.NDArray[np.uint8]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]

_CODES = np.arange(256)
_OF_ANSWER = (_CODES >> 4 >= ANSWER) & (_CODES >> 4 <= BAD)
# Tables by code: mask = roles.TARGET[codes], and torch.from_numpy(roles.TARGET)[codes.long()] where the codes are.
TARGET: Bools = _OF_ANSWER & np.isin(_CODES & 15, (ASSISTANT, TOOL_CALL, TERMINATOR))  # what a model writes
CONTENT: Bools = _OF_ANSWER & np.isin(_CODES & 15, (ASSISTANT, TOOL_CALL))  # the same without format tokens (Llama 3, 4.1.4)
LEARNT: Bools = TARGET & ~np.isin(_CODES >> 4, (LAST, BAD))  # what a likelihood may be raised of


def code(part: int, grade: int = CONTEXT) -> int:
    """The code of a token."""
    return part | grade << 4


def part_of(codes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The part of each token: any shape of codes, or a tensor of them."""
    return codes & 15


def grade_of(codes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The grade of each token's turn: any shape of codes, or a tensor of them."""
    return codes >> 4


def sequence_starts(codes: Codes) -> Ints:
    """Where sequences begin in the codes of one document, or of several: after each NONE, and at 0. Shape (sequences,)."""
    begins = np.flatnonzero((codes[:-1] == NONE) & (codes[1:] != NONE)) + 1
    return np.append(0, begins)


def sequence_grades(codes: Codes, starts: Ints) -> Ints:
    """The grade of the answer of each sequence, CONTEXT where it has none. Codes (tokens,), starts and result (sequences,).

    `codes` may be those of targets: a header, which opens a sequence, is no answer's body.
    """
    return np.maximum.reduceat(grade_of(codes), starts).astype(np.int64)


def pairs(grades: Ints) -> Ints:
    """Every pair that sequences in a row make: (preferred, other, grade of the preferred one), numbers of sequences; (k, 3).

    Of one document each answer is preferred to all that follow it, up to the LAST.
    """
    made: list[tuple[int, int, int]] = []
    first = 0
    for number, grade in enumerate(grades.tolist()):
        if not UNRATED <= grade <= LAST:
            first = number + 1
            continue
        made += [(better, number, int(grades[better])) for better in range(first, number)]
        if grade == LAST:
            first = number + 1
    return np.array(made, np.int64).reshape(-1, 3)
