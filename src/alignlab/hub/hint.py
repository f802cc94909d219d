"""What to type where a repository isn't here."""

from pathlib import Path

from alignlab.hub.assets import Asset


def fetch_hint(name: str) -> str:
    """The command that fetches a repository, to be put behind an error; empty for what is no repository's name."""
    if Path(name).exists():
        return ""
    try:
        return f"; programs don't download: alignlab fetch get {Asset(name).name}"
    except ValueError:
        return ""
