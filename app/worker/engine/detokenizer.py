"""The text of an answer while it grows: what is safe to show, and where it must end.

Knows token ids and a way to decode them; no sequence and no backbone.
"""

from collections.abc import Callable
from typing import Final

# How decoders write a character of which not all bytes are there.
_INCOMPLETE: Final = "\N{REPLACEMENT CHARACTER}"
# Bytes that are no character by then never become one.
_MOST_TOKENS_OF_A_CHARACTER: Final = 8
_MOST_CONTEXT_TOKENS: Final = 32

Decode = Callable[[list[int]], str]


class Detokenizer:
    """An answer's text, decoded a few tokens at a time.

    Space around the answer is no part of it, nor is a stop text or what comes after it. What could
    still turn out to be either is held back, as is a character whose bytes are not all there.

    Args:
        decode: Text of token ids, without control tokens.
        stop: Texts that end the answer.
    """

    def __init__(self, decode: Decode, *, stop: tuple[str, ...] = ()) -> None:
        self._decode = decode
        self._stop = stop
        self._most_held = max(map(len, stop), default=1) - 1
        self._token_ids: list[int] = []
        self._begin = self._end = 0
        self._text = ""
        self._num_shown = 0
        self.is_stopped = False

    def add(self, token_id: int) -> None:
        """Take the next token; `is_stopped` says whether it completed a stop text."""
        self._token_ids.append(token_id)
        self._grow(is_last=False)

    def end(self) -> None:
        """Take note that no token follows, so that nothing is incomplete any longer."""
        if not self.is_stopped:
            self._grow(is_last=True)

    @property
    def whole(self) -> str:
        """All of the answer so far."""
        return self._text.strip()

    def shown(self, *, is_last: bool) -> str:
        """What can be shown now and was not before; all calls together give the whole.

        Args:
            is_last: Whether the answer has ended, so that nothing need be held back.
        """
        safe = self._text if is_last else self._text[: max(0, len(self._text) - self._most_held)]
        start = len(self._text) - len(self._text.lstrip())
        # Space at the end may turn out to be followed by a word.
        end = len(safe.rstrip())
        begin = max(start, self._num_shown)
        self._num_shown = max(begin, end)
        return safe[begin:end]

    def _grow(self, *, is_last: bool) -> None:
        """Decode the new tokens behind some known ones, since a token's text may depend on them."""
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
        found = [place for stop in self._stop if (place := self._find(stop, known)) >= 0]
        if found:
            self._text = self._text[: min(found)]
            self.is_stopped = True

    def _find(self, stop: str, known: int) -> int:
        return self._text.find(stop, max(0, known - len(stop) + 1))
