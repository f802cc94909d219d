"""The loop on the page of methods runs as it stands there, and learns."""

from tiny_run import REPOSITORY


def test_the_page_of_methods_runs() -> None:
    page = (REPOSITORY / "docs" / "methods.md").read_text(encoding="utf-8")
    (code,) = (block.partition("```")[0] for block in page.split("```python\n")[1:])
    names: dict = {}
    exec(code, names)
    assert names["losses"][-1] < 0.7 * names["losses"][0]
