"""Why a file or a repository can't be had, in words that say what to do."""


class HubError(Exception):
    """A repository or file that can't be had from any endpoint; the others go on."""


class Unreachable(HubError):
    """An endpoint that doesn't answer, or answers with an error of its own: another one, or a later try, may do."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait  # seconds that the server asked to be left alone (Retry-After)


class Damaged(HubError):
    """Bytes that aren't those that the tree promises."""


class DiskFull(HubError):
    """No room: nothing more is worth a try."""
