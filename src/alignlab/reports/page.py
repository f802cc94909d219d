"""What a page is made of, and the page as HTML."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Note:
    """A paragraph; `warns` for what somebody should look at."""

    text: str
    warns: bool = False
    kind: str = "note"


@dataclass(frozen=True)
class Grid:
    """A table; the first column stays in sight while others are moved through a narrow screen."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    kind: str = "grid"


@dataclass(frozen=True)
class Figure:
    """A picture out of `charts` and what it shows."""

    picture: Markup
    caption: str
    kind: str = "figure"


@dataclass(frozen=True)
class Cut:
    """A text in pieces, under the name of what cut it; `true` for a piece that is no whole characters."""

    name: str
    pieces: Sequence[tuple[str, bool]]
    kind: str = "cut"


@dataclass(frozen=True)
class Pictures:
    """Pictures out of `lines` beside each other, as many as the screen has room for."""

    pictures: Sequence[Markup]
    kind: str = "pictures"


@dataclass(frozen=True)
class Shot:
    """A picture's file inside the page: `data:` and what it holds."""

    source: str
    caption: str
    kind: str = "shot"


@dataclass(frozen=True)
class Listing:
    """A text to be copied, folded up unless it is `opened`."""

    title: str
    text: str
    opened: bool = False
    kind: str = "listing"


Block = Note | Grid | Figure | Cut | Pictures | Shot | Listing


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class Page:
    """A report."""

    title: str
    lead: str
    sections: Sequence[Section] = field(default_factory=list)


def render(page: Page) -> str:
    """The page as HTML in one piece; whatever stands in texts is text there."""
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = Markup((FOLDER / "style.css").read_text(encoding="utf-8"))
    return environment.get_template("page.html.j2").render(page=page, style=style)
