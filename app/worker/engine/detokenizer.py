"""The text of an answer while it grows: what is safe to show, and where it must end."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Final

# How decoders write a character of which not all bytes are there.
_INCOMPLETE: Final = "\N{REPLACEMENT CHARACTER}"
# Bytes that are no character by then never become one.
_MOST_TOKENS_OF_A_CHARACTER: Final = 8
_MOST_CONTEXT_TOKENS: Final = 32

Decode = Callable[[list[int]], str]


def whole_text(token_ids: list[int], decode: Decode) -> str:
    """The text of an answer that nobody looked at before, equal to what would have been shown."""
    text = decode(token_ids)
    if _INCOMPLETE not in text:
        return text.lstrip()
    # Some decoders read broken characters differently once more bytes follow them.
    detokenizer = Detokenizer(decode)
    for token_id in token_ids:
        detokenizer.add(token_id)
    detokenizer.end()
    return detokenizer.whole


class Detokenizer:
    """An answer's text, decoded a few tokens at a time.

    Space before the answer is no part of it unless it goes on with a text, nor is a stop text or
    what comes after it. What could still turn out to be a stop text is held back, as is a character
    whose bytes are not all there.

    Every token has its share of the text, and all shares joined are the text: a character belongs
    to the token that completes it, and the tokens before that have none.

    Args:
        stop: Texts that end the answer.
        known: The last tokens of the text that the answer goes on with; none where it stands alone.
    """

    def __init__(
        self, decode: Decode, *, stop: tuple[str, ...] = (), known: Sequence[int] = ()
    ) -> None:
        self._decode = decode
        self._stop = stop
        self._most_held = max(map(len, stop), default=1) - 1
        self._token_ids = list(known)
        self._begin = self._before = 0
        self._end = len(known)
        self._stands_alone = not known
        self._text = ""
        # Where in the text each token's share ends.
        self._ends: list[int] = []
        self._num_shown = 0
        self.is_stopped = False

    def add(self, token_id: int) -> None:
        """Take the next token; `is_stopped` says whether it completed a stop text."""
        self._token_ids.append(token_id)
        self._ends.append(len(self._text))
        self._grow(is_last=False)

    def end(self) -> None:
        """Take note that no token follows, so that nothing is incomplete any longer."""
        if not self.is_stopped:
            self._grow(is_last=True)

    @property
    def whole(self) -> str:
        """All of the answer so far."""
        return self._text[self._start :]

    @property
    def num_covered(self) -> int:
        """How many tokens the answer consists of; those of a stop text are none of them."""
        if not self.is_stopped:
            return len(self._ends)
        # The last of them may have begun the stop text as well.
        return 1 + bisect_left(self._ends, len(self._text)) if self._text else 0

    @property
    def num_settled(self) -> int:
        """How many tokens have their whole share shown; one without a share goes with the next."""
        if not self._num_shown:
            return 0
        place = bisect_left(self._ends, self._num_shown)
        return place + (self._ends[place : place + 1] == [self._num_shown])

    def share(self, place: int) -> str:
        """The text of the token at a place of the answer."""
        start = self._start
        begin = self._ends[place - 1] if place else 0
        return self._text[max(begin, start) : max(self._ends[place], start)]

    def read(self, token_id: int) -> str:
        """How another token would read in the place of the last one; nothing for control tokens."""
        known = self._token_ids[self._before : -1]
        text = self._decode([*known, token_id])[len(self._decode(known)) :]
        is_first = not self._text[: self._ends[-2] if len(self._ends) > 1 else 0].strip()
        return text.lstrip() if is_first and self._stands_alone else text

    @property
    def _start(self) -> int:
        """Where the answer begins, behind the space before it."""
        return len(self._text) - len(self._text.lstrip()) if self._stands_alone else 0

    def shown(self, *, is_last: bool) -> str:
        """What can be shown now and was not before; all calls together give the whole.

        Nothing is held back of an answer that has ended.
        """
        end = len(self._text) if is_last else max(0, len(self._text) - self._most_held)
        begin = max(self._start, self._num_shown)
        self._num_shown = max(self._num_shown, end)
        return self._text[begin:end]

    def _grow(self, *, is_last: bool) -> None:
        """Decode the new tokens behind some known ones, since a token's text may depend on them."""
        self._before = self._begin
        before = self._decode(self._token_ids[self._begin : self._end])
        now = self._decode(self._token_ids[self._begin :])
        is_held = len(self._token_ids) - self._end < _MOST_TOKENS_OF_A_CHARACTER
        if now.endswith(_INCOMPLETE) and is_held and not is_last:
            return
        known = len(self._text)
        self._text += now[len(before) :]
        is_context = len(now) > len(before) or self._end - self._begin > _MOST_CONTEXT_TOKENS
        if is_context:
            # A token without text, such as a control token, is no context for the next one.
            self._begin = self._end
        self._end = len(self._token_ids)
        self._ends[-1:] = [len(self._text)] if self._ends else []
        found = [place for stop in self._stop if (place := self._find(stop, known)) >= 0]
        if found:
            self._text = self._text[: min(found)]
            self.is_stopped = True

    def _find(self, stop: str, known: int) -> int:
        return self._text.find(stop, max(0, known - len(stop) + 1))
