"""The page of a run that answers: pictures, a question or a sentence, and how likely each answer is."""

from pathlib import Path
from typing import Any

from alignlab.tasks.demo import words
from alignlab.tasks.demo.asking import Asking
from alignlab.tasks.demo.page import TURNS, Notes, picture_field, said
from alignlab.tasks.job import Opened


def asking_page(gr: Any, model: Opened, asking: Asking, notes: Notes) -> Any:
    """A `gr.Blocks`."""
    what = "question" if asking.questions else "sentence"
    about = "the picture" if asking.pictures == 1 else f"{asking.pictures} pictures"
    with gr.Blocks(title=f"alignlab: {model.name}", analytics_enabled=False) as page:
        gr.HTML(words.heading(model.name, f"a {what} about {about}; one of {len(asking.names)} answers"))
        if asking.blind_to:
            gr.HTML(words.note(f"this run was trained without {asking.blind_to} and doesn't look at them here either"))
        with gr.Row():
            names = ["Picture"] if asking.pictures == 1 else ["Left picture", "Right picture"]
            pictures = [picture_field(gr, name) for name in names]
            with gr.Column():
                text = gr.Textbox(label=what.capitalize(), lines=2, autofocus=True)
                with gr.Row():
                    start = gr.Button("Ask", variant="primary", min_width=90)
                    another = gr.Button("An example", min_width=90)
                line, table = gr.HTML(), gr.HTML()
        number, known = gr.State(0), gr.State(None)  # how many held-out rows were taken; text and answer of the last

        @said(line)
        def ask(question: str, example: tuple | None, *files: str | None) -> dict:
            found = asking.ask(files, question)
            names = [Path(file).name for file in files]
            notes("ask", question.strip(), images=names, answers=found.probabilities, free=found.free)
            right = example[1] if example and example[0] == question else None
            return {table: words.answers_table(found, right), line: ""}

        @said(line)
        def take(count: int) -> dict:
            row = asking.example(count)
            shown = dict(zip(pictures, map(str, row.pictures), strict=True))
            return {number: count + 1, known: (row.text, row.right), text: row.text, table: "", line: "", **shown}

        gr.on([start.click, text.submit], ask, [text, known, *pictures], [table, line], show_progress_on=line, **TURNS)
        another.click(take, number, [number, known, text, table, line, *pictures], show_progress="hidden", **TURNS)
        gr.on(
            [event for picture in pictures for event in (picture.upload, picture.clear)], lambda: None, None, known,
            show_progress="hidden",
        )  # fmt: skip
    return page
