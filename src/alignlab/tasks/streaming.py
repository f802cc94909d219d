"""Text on the terminal as its tokens come in."""

from typing import Any, TextIO


class TokenStream:
    """Writes text as its tokens come in; a character that is not complete yet waits."""

    def __init__(self, tokenizer: Any, to: TextIO) -> None:
        self.tokenizer, self.to, self.ids, self.written = tokenizer, to, [], 0

    def take(self, id: int) -> None:
        self.ids.append(id)
        text = self.tokenizer.decode(self.ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        if not text.endswith("\ufffd"):
            self.to.write(text[self.written :])
            self.to.flush()
            self.written = len(text)

    def end(self, text: str = "") -> None:
        """Ends the line; a backend that told of no token leaves `text` to be written as a whole."""
        self.to.write("\n" if self.ids else f"{text}\n")
        self.to.flush()
        self.ids, self.written = [], 0
