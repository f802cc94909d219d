"""The scripted backend keeps the protocol's promises."""

from alignlab.inference.backend import ModelSource, Request, Sampling
from alignlab.inference.backends.scripted import ScriptedBackend, byte_tokenizer


def test_bytes_lose_nothing() -> None:
    tokenizer = byte_tokenizer()
    for text in ("Hello\n\n  there", "Käse 🧀", "\t<|x|>"):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == text and len(ids) == len(text.encode())
    assert len(tokenizer) == 257


def test_answers_by_order_and_by_content() -> None:
    ids = byte_tokenizer()("What is a cat?")["input_ids"]
    backend = ScriptedBackend(["one", "two"])
    assert backend.available().ok
    backend.load(ModelSource(""))
    done = []
    found = backend.generate([Request(ids)] * 3, on_done=lambda index, completion: done.append((index, completion)))
    assert [byte_tokenizer().decode(c.ids, skip_special_tokens=True) for c in found] == ["one", "two", ""]
    assert [c.finish for c in found] == ["eos", "eos", "error"] and done == list(enumerate(found))
    assert found[0].logprobs == [-1.0] * 4 and found[0].ids[-1] == 0
    longest = ScriptedBackend({"cat": "short", "a cat": "long"}).generate([Request(ids)])[0]
    assert byte_tokenizer().decode(longest.ids, skip_special_tokens=True) == "long"


def test_tokens_stream_and_end_at_the_limit() -> None:
    streamed = []
    request = Request([1], 0, Sampling(max_new_tokens=2))
    (found,) = ScriptedBackend(["long"]).generate([request], on_token=lambda index, id: streamed.append((index, id)))
    assert found.finish == "length" and streamed == [(0, id) for id in found.ids] and len(found.ids) == 2
