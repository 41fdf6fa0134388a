"""Scores of answers and how sure their mean is."""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from snowballstemmer import stemmer

from app.core.errors import InvalidInputError

Scorer: TypeAlias = Callable[[str, Sequence[str]], float]

Z_95: Final = 1.959963984540054
_ANNOTATORS_NEEDED: Final = 3


Interval: TypeAlias = tuple[float, float, float]
"""A mean and both ends of its 95 % confidence interval, all in [0, 1]."""


def wilson_interval(num_right: int, num_items: int) -> Interval:
    """The share of right answers with Wilson's score interval, which holds near 0 and 1 too.

    Raises:
        InvalidInputError: There is no item.

    Source: Wilson (1927), Probable inference, the law of succession, and statistical inference.
    """
    if num_items < 1:
        raise InvalidInputError("No interval without items: wanted at least one, found none")
    share = num_right / num_items
    scale = 1 + Z_95**2 / num_items
    centre = (share + Z_95**2 / (2 * num_items)) / scale
    spread = share * (1 - share) / num_items + Z_95**2 / (4 * num_items**2)
    half = Z_95 * math.sqrt(spread) / scale
    # Rounding may leave the bounds a hair beside the mean at 0 and 1.
    return share, min(share, max(0.0, centre - half)), max(share, min(1.0, centre + half))


def mean_interval(scores: Sequence[float]) -> Interval:
    """The mean score: Wilson's interval for scores of 0 and 1, the normal one for graded scores.

    Raises:
        InvalidInputError: There is no score.
    """
    if all(score in {0.0, 1.0} for score in scores):
        return wilson_interval(round(sum(scores)), len(scores))
    mean = math.fsum(scores) / len(scores)
    variance = math.fsum((score - mean) ** 2 for score in scores) / max(1, len(scores) - 1)
    half = Z_95 * math.sqrt(variance / len(scores))
    return mean, max(0.0, mean - half), min(1.0, mean + half)


_SPACE: Final = re.compile(r"\s+")
_EDGE_PUNCTUATION: Final = " \t\n.,;:!?\"'`"


def _plain(text: str) -> str:
    return _SPACE.sub(" ", text).strip(_EDGE_PUNCTUATION).casefold()


def exact_match(prediction: str, answers: Sequence[str]) -> float:
    """1 when the prediction is one of the answers, up to case, space and edge punctuation."""
    return float(_plain(prediction) in {_plain(answer) for answer in answers})


_PUNCTUATION: Final = ';/[]"{}()=+\\_-><@`,?!'
_COMMA_IN_NUMBER: Final = re.compile(r"(\d)(,)(\d)")
# The official rule, which means to keep a period behind a digit too, drops that one as well.
_LONE_PERIOD: Final = re.compile(r"\.(?!\d)")
_ARTICLES: Final = frozenset({"a", "an", "the"})
_DIGITS: Final = (
    *("zero", "one", "two", "three", "four", "five"),
    *("six", "seven", "eight", "nine", "ten"),
)
_NUMBERS: Final = {"none": "0"} | {word: str(number) for number, word in enumerate(_DIGITS)}
_CONTRACTED: Final = """
    'ow's'at 'twas ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't
    hadn't've hasn't haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am
    might've mightn't mightn't've must've mustn't needn't not've o'clock oughtn't shan't
    she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd
    someone'd've someone'll someone's something'd something'd've something'll that's there'd
    there'd've there're there's they'd they'd've they'll they're they've wasn't we'd've we've
    weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll
    who's who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'd've
    y'all'll you'd you'd've you'll you're you've
"""
# With one apostrophe forgotten, and the one word that the official table has the wrong way round.
_CONTRACTIONS: Final = {
    whole[:place] + whole[place + 1 :]: whole
    for whole in _CONTRACTED.split()
    for place, letter in enumerate(whole)
    if letter == "'"
} | {"somebody'd": "somebodyd"}


def _without_punctuation(text: str) -> str:
    result = text
    for mark in _PUNCTUATION:
        at_an_edge = f"{mark} " in text or f" {mark}" in text
        drop = at_an_edge or _COMMA_IN_NUMBER.search(text) is not None
        result = result.replace(mark, "" if drop else " ")
    return _LONE_PERIOD.sub("", result)


def _with_plain_words(text: str) -> str:
    words = (_NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def normalize_vqa(text: str) -> str:
    """An answer as the VQA metric compares it: no punctuation, articles or number words."""
    return _with_plain_words(_without_punctuation(text))


def _leave_one_out(prediction: str, answers: Sequence[str]) -> float:
    hits = [answer == prediction for answer in answers]
    scores = [min(1.0, (sum(hits) - hit) / _ANNOTATORS_NEEDED) for hit in hits]
    return math.fsum(scores) / len(scores)


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """The VQA score: agreement with the other annotators, each left out once by position.

    As in the official evaluation, answers are normalised only when they are not unanimous. With
    fewer than four annotators full agreement cannot reach 1; use exact match there.

    Source: Antol et al. (2015) and the evaluation code at https://visualqa.org.
    """
    found = prediction.replace("\n", " ").replace("\t", " ").strip()
    references = [answer.replace("\n", " ").replace("\t", " ").strip() for answer in answers]
    if len(set(references)) > 1:
        found = normalize_vqa(found)
        references = [normalize_vqa(answer) for answer in references]
    return _leave_one_out(found, references)


def vqa_accuracy_normalized(prediction: str, answers: Sequence[str]) -> float:
    """The VQA score with every text normalised, unanimous answers too."""
    return _leave_one_out(normalize_vqa(prediction), [normalize_vqa(answer) for answer in answers])


_STEM: Final = stemmer("english")


def okvqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """The VQA score with every word stemmed, since the answers of OK-VQA are.

    The stemmer is Porter's second; the answers are stemmed by it once more, so that what another
    stemmer made of them still meets the prediction.

    Source: Marino et al. (2019), OK-VQA, arXiv 1906.00067.
    """

    def stemmed(text: str) -> str:
        return " ".join(_STEM.stemWords(normalize_vqa(text).split()))

    return _leave_one_out(stemmed(prediction), [stemmed(answer) for answer in answers])


def aokvqa_direct(prediction: str, answers: Sequence[str]) -> float:
    """A third for every direct answer that is the same, at most 1; nobody is left out.

    Source: https://github.com/allenai/aokvqa.
    """
    matches = sum(answer.strip().lower() == prediction.strip().lower() for answer in answers)
    return min(1.0, matches / _ANNOTATORS_NEEDED)


def gqa_match(prediction: str, answers: Sequence[str]) -> float:
    """1 when the prediction is the answer, up to case and space around it.

    Source: Hudson and Manning (2019), GQA, arXiv 1902.09506.
    """
    return float(prediction.strip().lower() in {answer.strip().lower() for answer in answers})


def _first_sentence(text: str) -> str:
    """Up to the first line's end, or where there is none up to the first full stop."""
    found = text.strip()
    end = found.find("\n")
    if end <= 0:
        end = found.find(".")
    return found[:end] if end > 0 else found


def vl_icl_match(prediction: str, answers: Sequence[str]) -> float:
    """1 when the first sentence of the prediction is the answer, up to case.

    Source: https://github.com/ys-zong/VL-ICL.
    """
    sentence = _first_sentence(prediction).lower()
    return float(sentence in {answer.lower() for answer in answers})


def vl_icl_number(prediction: str, answers: Sequence[str]) -> float:
    """1 when the first number in the first sentence is the answer; signs are not read.

    So a negative answer can never be right, as in the official evaluation.

    Source: https://github.com/ys-zong/VL-ICL.
    """
    found = re.search(r"\d+", _first_sentence(prediction))
    return float((found.group() if found else "") in set(answers))


def vl_icl_yes_no(prediction: str, answers: Sequence[str]) -> float:
    """1 when the first sentence of the prediction has a yes where one is wanted, and else none.

    So whatever has no yes in it is a right no, as in the official evaluation.

    Source: https://github.com/ys-zong/VL-ICL.
    """
    return float(("yes" in _first_sentence(prediction).lower()) == (answers[0].lower() == "yes"))


SCORERS: Final[dict[str, Scorer]] = {
    "exact-match": exact_match,
    "vqa": vqa_accuracy,
    "vqa-normalized": vqa_accuracy_normalized,
    "okvqa": okvqa_accuracy,
    "aokvqa-direct": aokvqa_direct,
    "gqa": gqa_match,
    "vl-icl": vl_icl_match,
    "vl-icl-number": vl_icl_number,
    "vl-icl-yes-no": vl_icl_yes_no,
}


def text_hits(texts: Sequence[str], answers: Sequence[str]) -> list[bool]:
    """Which texts are the answers to the letter, as what a backbone writes has to be."""
    return [text == answer for text, answer in zip(texts, answers, strict=True)]


def majority_hits(labels: Sequence[str], answers: Sequence[str]) -> list[bool]:
    """Which answers are the most usual of those that were seen; of equally many, the first."""
    usual = Counter(labels).most_common(1)[0][0]
    return text_hits([usual] * len(answers), answers)


def find_scorer(name: str) -> Scorer:
    """The scorer of that name.

    Raises:
        InvalidInputError: There is none.
    """
    if name not in SCORERS:
        raise InvalidInputError(
            f"Unknown scorer: wanted {', '.join(SCORERS)}, found {name}",
            details={"wanted": list(SCORERS), "found": name},
        )
    return SCORERS[name]
