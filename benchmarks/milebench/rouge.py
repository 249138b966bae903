"""ROUGE-L in the two implementations that matter: the `rouge` package's 1.0.1, and `rouge-score`'s.

They differ: the former compares *sets* of words per text (Lin 2004, union LCS at summary level, f with 1e-8 in
the denominator), the latter sequences of words without punctuation. MileBench's numbers are the former's.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer

_EPSILON = 1e-8


def rouge_l(prediction: str, reference: str) -> float:
    """Summary-level ROUGE-L f of the `rouge` package 1.0.1, on sets of words.

    Sentences end at each period and words are what whitespace separates. The LCS of every pair of
    reference and predicted sentence is united into one set of words, whose size is compared with the
    sizes of both texts' vocabularies.

    Args:
        prediction: the predicted text; MileBench normalises it first.

    Returns:
        f in [0, 1]; 0 when a text has no sentence, where the package itself raises an error.
    """
    predicted, referred = _sentences(prediction), _sentences(reference)
    if not predicted or not referred:
        return 0.0
    common: set[str] = set()
    for reference_words in referred:
        for predicted_words in predicted:
            common |= set(_longest_common_subsequence(reference_words, predicted_words))
    precision = len(common) / len({word for words in predicted for word in words})
    recall = len(common) / len({word for words in referred for word in words})
    return 2.0 * ((precision * recall) / (precision + recall + _EPSILON))


def rouge_score_l(prediction: str, reference: str) -> float:
    """Sentence-level ROUGE-L f of the `rouge-score` package, without stemming, on the texts as they are.

    Returns:
        f in [0, 1].
    """
    return float(_rouge_scorer().score(reference, prediction)["rougeL"].fmeasure)


@lru_cache(maxsize=1)
def _rouge_scorer() -> RougeScorer:
    from rouge_score.rouge_scorer import RougeScorer  # it takes seconds to import

    return RougeScorer(["rougeL"], use_stemmer=False)


def _sentences(text: str) -> list[list[str]]:
    # A sentence of nothing but whitespace counts as one empty word.
    return [sentence.split() or [""] for sentence in text.split(".") if sentence]


def _longest_common_subsequence(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """One LCS of two word lists, last word first; of equally long ones, the one the `rouge` package finds."""
    lengths = [[0] * (len(second) + 1)]
    for word in first:
        above = lengths[-1]
        row = [0]
        left = 0
        for column, other in enumerate(second):
            if word == other:
                left = above[column] + 1
            elif above[column + 1] > left:
                left = above[column + 1]
            row.append(left)
        lengths.append(row)

    words: list[str] = []
    i, j = len(first), len(second)
    while i and j:
        if first[i - 1] == second[j - 1]:
            words.append(first[i - 1])
            i, j = i - 1, j - 1
        elif lengths[i - 1][j] > lengths[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return words
