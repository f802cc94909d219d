"""The page: what stands where, and which of a demo's parts each button asks. Gradio comes in as an argument."""

import logging
from collections.abc import Callable
from functools import wraps
from html import escape
from pathlib import Path
from typing import Any

from alignlab.files.kinds import line_of
from alignlab.tasks.demo import words
from alignlab.tasks.demo.judging import judged
from alignlab.tasks.demo.looking import CANDIDATES, Looking
from alignlab.tasks.demo.talking import Talking
from alignlab.tasks.job import Opened

log = logging.getLogger(__name__)
CSS = Path(__file__).with_name("page.css")
# One model computes one thing at a time, whoever asks; the page says who waits.
TURNS = {"concurrency_limit": 1, "concurrency_id": "model"}
_HEAT = "where the matching score looks for each word of the first text; each map is scaled to its own maximum"
Notes = Callable[..., None]  # (kind, input, **more): a row of predictions.jsonl


def looking_page(gr: Any, model: Opened, looking: Looking, notes: Notes) -> Any:
    """The page of a model of pictures and texts, a `gr.Blocks`."""
    with gr.Blocks(title=f"alignlab: {model.name}", analytics_enabled=False) as page:
        gr.HTML(words.heading(model.name, "pictures by words, and how texts fit a picture"))
        chosen = gr.State(None)  # path of the picture that a search found and somebody clicked on
        with gr.Tabs() as tabs:
            with gr.Tab("Search", id="search"):
                gallery, hits = _search(gr, looking, notes)
            with gr.Tab("Picture and text", id="match"):
                picture = _match(gr, looking, chosen, notes)

        def take(found: list, event: gr.SelectData) -> tuple[Any, Any, str]:
            hit = found[event.index]
            return gr.Tabs(selected="match"), hit.picture, str(hit.path)

        gallery.select(take, hits, [tabs, picture, chosen], show_progress="hidden")
    return page


def _search(gr: Any, looking: Looking, notes: Notes) -> tuple[Any, Any]:
    own = "the run's held-out pictures" if looking.has_own else "a folder on this machine"
    asked = gr.Textbox(label="Words", placeholder="a dog to the left of a cat", autofocus=True)
    with gr.Row():
        place = gr.Textbox(label="Folder of pictures", placeholder=looking.pictures or own, scale=2)
        number = gr.Slider(1, 24, value=8, step=1, label="How many")
        matches = looking.subject.matches
        rerank = gr.Checkbox(matches, label=f"Best {CANDIDATES} in the order of the matching head", visible=matches)
    start = gr.Button("Search", variant="primary")
    line, hits = gr.HTML(), gr.State([])
    gallery = gr.Gallery(
        show_label=False, columns=4, height="auto", allow_preview=False, object_fit="contain", format="png",
        interactive=False, buttons=[], visible=False, fit_columns=False,
    )  # fmt: skip

    @said(line)
    def search(text: str, folder: str, many: int, best: bool, progress: Any = gr.Progress()) -> dict:  # noqa: B008
        def told(done: int, total: int) -> None:
            progress((done, total), desc="reading pictures", unit="pictures")

        found, about = looking.search(text, folder, int(many), best, told)
        notes("search", text.strip(), pictures=[str(hit.path) for hit in found], scores=[hit.score for hit in found])
        shown = gr.Gallery([(hit.picture, hit.label) for hit in found], visible=True)
        return {gallery: shown, hits: found, line: words.note(about)}

    gr.on(
        [start.click, asked.submit, place.submit], search, [asked, place, number, rerank], [gallery, hits, line],
        show_progress_on=line, **TURNS,
    )  # fmt: skip
    return gallery, hits


def _match(gr: Any, looking: Looking, chosen: Any, notes: Notes) -> Any:
    with gr.Row():
        picture = picture_field(gr, "Picture")
        with gr.Column():
            texts = gr.Textbox(label="Texts, a line each", lines=4, placeholder="a dog to the left of a cat")
            start = gr.Button("Compare", variant="primary")
            line, table = gr.HTML(), gr.HTML()
    about = gr.HTML()
    heat = gr.Gallery(
        show_label=False, columns=4, height="auto", allow_preview=False, object_fit="contain", format="png",
        interactive=False, buttons=[], visible=False, fit_columns=False,
    )  # fmt: skip

    @said(line)
    def match(uploaded: str | None, found: str | None, lines: str) -> dict:
        path = found or uploaded
        fits = looking.match(path, lines)
        maps = looking.heat(path, lines) if looking.points else []
        notes("match", lines.strip(), image=Path(path).name, scores=[fit._asdict() for fit in fits])
        said = words.note(_HEAT) if maps else ""
        shown = gr.Gallery(maps, visible=bool(maps))
        return {table: words.fits_table(fits), heat: shown, about: said, line: ""}

    start.click(match, [picture, chosen, texts], [table, heat, about, line], show_progress_on=line, **TURNS)
    gr.on([picture.upload, picture.clear], lambda: None, None, chosen, show_progress="hidden")
    return picture


def picture_field(gr: Any, name: str) -> Any:
    """Where a picture is dropped; handlers get its path."""
    field = gr.Image(
        type="filepath", image_mode=None, sources=["upload", "clipboard"], format="png", height=320, buttons=[],
        label=name,
    )  # fmt: skip
    # Gradio's own opens the file before anybody is asked, and a broken one ends in a message of PIL's.
    field.preprocess = lambda payload: payload and payload.path
    return field


def talking_page(gr: Any, models: list[Opened], talking: Talking, notes: Notes) -> Any:
    """The page of one or two language models, a `gr.Blocks`."""
    with gr.Blocks(title=f"alignlab: {models[0].name}", analytics_enabled=False) as page:
        gr.HTML(words.heading(" and ".join(model.name for model in models), "a dialogue, and how likely texts are"))
        with gr.Tabs():
            with gr.Tab("Chat"):
                _chat(gr, models, talking, notes)
            with gr.Tab("Texts"):
                _judge(gr, models, notes)
    return page


def _chat(gr: Any, models: list[Opened], talking: Talking, notes: Notes) -> None:
    with gr.Row():
        # Whatever a model writes is text: as Markdown it might ask for pictures from elsewhere.
        bots = [
            gr.Chatbot(
                label=model.name, render_markdown=False, feedback_options=None, buttons=[], height=420,
                allow_file_downloads=False, layout="bubble",
            )
            for model in models
        ]  # fmt: skip
    line = gr.HTML()
    message = gr.Textbox(label="Message", placeholder="Enter sends, Shift-Enter begins a line", lines=1, autofocus=True)
    with gr.Row():
        send = gr.Button("Send", variant="primary", min_width=90)
        stop, anew = gr.Button("Stop", min_width=90), gr.Button("New dialogue", min_width=90)
    how = _how(gr, models[0], talking)
    dialogues = gr.State(None)

    def chat(text: str, known: list | None, first: str, heat: float, tokens: int, request: gr.Request) -> Any:
        known = known or talking.beginning(first)
        try:
            for said in talking.turn(known, text, heat, int(tokens), request.session_hash):
                new = [("user", text.strip())], [("assistant", one.text) for one in said]
                if not all(one.done for one in said):
                    shown = [_shown(dialogue, [*new[0], reply]) for dialogue, reply in zip(known, new[1], strict=True)]
                    yield {message: "", line: "", **dict(zip(bots, shown, strict=True))}
        except ValueError as error:
            yield {line: words.note(line_of(error), bad=True)}
            return
        notes("chat", text.strip(), replies=[one._asdict() for one in said])
        errors = "; ".join(f"{model.name}: {one.error}" for model, one in zip(models, said, strict=True) if one.error)
        shown = {bot: _shown(dialogue, []) for bot, dialogue in zip(bots, known, strict=True)}
        yield shown | {dialogues: known, line: words.note(errors, bad=True), message: text if errors else ""}

    outputs = [dialogues, message, line, *bots]
    asking = [message, dialogues, *how]
    gr.on([send.click, message.submit], chat, asking, outputs, show_progress="hidden", **TURNS)

    def end(request: gr.Request) -> None:
        talking.stop(request.session_hash)

    def begin(request: gr.Request) -> dict:
        talking.stop(request.session_hash)
        return {dialogues: None, line: "", **{bot: [] for bot in bots}}

    stop.click(end, show_progress="hidden")
    gr.on([anew.click, *(bot.clear for bot in bots)], begin, None, outputs, show_progress="hidden", **TURNS)


def _how(gr: Any, model: Opened, talking: Talking) -> list[Any]:
    """Where the first message, the temperature and the length of answers are set."""
    sampling = model.subject.asker.sampling
    with gr.Accordion("How it answers", open=False):
        system = gr.Textbox(talking.system, label="System message, of a new dialogue")
        temperature = gr.Slider(0, 2, sampling.temperature, step=0.05, label="Temperature (0: the likeliest token)")
        most = gr.Slider(1, 1024, sampling.max_new_tokens, step=1, label="Tokens of an answer, at most")
    return [system, temperature, most]


def _shown(dialogue: list, more: list[tuple[str, str]]) -> list[dict]:
    """Turns for a `gr.Chatbot`, which reads HTML where it doesn't read Markdown."""
    turns = [(message.role, message.content) for message in dialogue if message.role != "system"]
    return [{"role": role, "content": escape(content, quote=False) or "…"} for role, content in [*turns, *more]]


def judging_page(gr: Any, model: Opened, notes: Notes) -> Any:
    """The page of a reward model, a `gr.Blocks`."""
    with gr.Blocks(title=f"alignlab: {model.name}", analytics_enabled=False) as page:
        gr.HTML(words.heading(model.name, "how good texts are to this reward model"))
        _judge(gr, [model], notes)
    return page


def _judge(gr: Any, models: list[Opened], notes: Notes) -> None:
    with gr.Group():
        before = gr.Textbox(label="What stands before each text (may be empty)")
        texts = gr.Textbox(label="Texts, a line each", lines=5)
    start = gr.Button("Score", variant="primary")
    line, tables = gr.HTML(), [gr.HTML() for _ in models]

    @said(line)
    def judge(prompt: str, lines: str) -> dict:
        shown = {}
        for model, table in zip(models, tables, strict=True):
            found = judged(model.subject, prompt, lines)
            notes("score", lines.strip(), before=prompt, model=model.name, scores=[one._asdict() for one in found])
            shown[table] = words.judged_table(found, model.name)
        return {line: "", **shown}

    start.click(judge, [before, texts], [*tables, line], show_progress_on=line, **TURNS)


def said(line: Any) -> Callable[[Callable], Callable]:
    """Makes a handler's errors a line on the page; nothing else on it changes."""

    def around(handler: Callable) -> Callable:
        @wraps(handler)
        def told(*arguments: Any, **more: Any) -> dict:
            try:
                return handler(*arguments, **more)
            except (ValueError, OSError) as error:
                return {line: words.note(line_of(error), bad=True)}
            except Exception as error:  # whatever it is, the page and the other people on it go on
                log.exception("the page asked for what could not be done")
                return {line: words.note(f"{type(error).__name__}: {line_of(error)} (infer.log has more)", bad=True)}

        return told

    return around
