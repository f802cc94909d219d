"""Text on the terminal as its tokens come in."""

from typing import Any, TextIO

from alignlab.inference.backend import Request


class TokenStream:
    """Writes text as its tokens come in; a character that is not complete yet waits, and so does what may become a
    stop string.
    """

    def __init__(self, tokenizer: Any, to: TextIO) -> None:
        self.tokenizer, self.to, self.streamed = tokenizer, to, False
        self._request: Request | None = None  # whose tokens come in
        self._ids: list[int] = []
        self._written = 0

    def take(self, id: int, request: Request) -> None:
        if request is not self._request:  # of a technique's next round
            self._finish()
            self._request = request
        self._ids.append(id)
        self.streamed = True
        text, held = self._text(), 0
        if text.endswith("\ufffd"):
            return
        for stop in request.sampling.stop:
            starts = (n for n in range(min(len(stop), len(text)), 0, -1) if text.endswith(stop[:n]))
            held = max(held, next(starts, 0))
        self._write(text[: len(text) - held])

    def end(self, text: str = "") -> None:
        """Ends the line; a backend that told of no token leaves `text` to be written as a whole."""
        self._finish()
        self.to.write("\n" if self.streamed else f"{text}\n")
        self.to.flush()
        self.streamed = False

    def _text(self) -> str:
        """What the tokens say, without the stop string that ended it."""
        text = self.tokenizer.decode(self._ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        places = [place for stop in self._request.sampling.stop if (place := text.find(stop)) >= 0]
        return text[: min(places)] if places else text

    def _write(self, text: str) -> None:
        self.to.write(text[self._written :])
        self.to.flush()
        self._written = max(self._written, len(text))

    def _finish(self) -> None:
        """Writes what waited for more tokens."""
        if self._request is not None:
            self._write(self._text().rstrip("\ufffd"))
        self._request, self._ids, self._written = None, [], 0
