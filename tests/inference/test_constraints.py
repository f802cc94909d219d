"""Generated text keeps a regular expression or a JSON schema; a grammar that is none is one line."""

import json
import re
from pathlib import Path

from alignlab.inference.backend import Backend, ModelSource, Request, Sampling
from alignlab.inference.backends.compiled import CompiledBackend
from alignlab.inference.backends.transformers import TransformersBackend
from tiny_models import save_model

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.decoders import ByteLevel
from transformers import PreTrainedTokenizerFast

pytest.importorskip("llguidance")
SCHEMA = {"type": "object", "properties": {"n": {"type": "boolean"}}, "required": ["n"], "additionalProperties": False}


def tokenizer() -> PreTrainedTokenizerFast:
    """The 95 printable characters, end of text, and a line break."""
    vocabulary = {"<end>": 0} | {("Ġ" if c == 32 else chr(c)): c - 31 for c in range(32, 127)} | {"Ċ": 96}
    plain = Tokenizer(models.BPE(vocabulary, merges=[]))
    plain.pre_tokenizer, plain.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<end>")


def generated(backend: Backend, folder: Path, sampling: Sampling) -> str:
    words = tokenizer()
    words.save_pretrained(folder)
    backend.load(ModelSource(str(folder), tokenizer=words))
    backend.opened.__dict__["eos"] = frozenset([0])
    found = backend.generate(
        [Request([40, 41], 1, sampling), Request([50], 2, Sampling(max_new_tokens=3, ignore_eos=True))]
    )
    assert len(found[1].ids) == 3  # the row beside it is free
    return words.decode(found[0].ids, skip_special_tokens=True)


@pytest.mark.parametrize("backend", [CompiledBackend, TransformersBackend])
def test_regex(backend: type[Backend], tmp_path: Path) -> None:
    sampling = Sampling(max_new_tokens=12, temperature=1.0, regex=r"[0-9]{3}-[a-f]{2}")
    text = generated(backend(), save_model("llama", tmp_path), sampling)
    assert re.fullmatch(r"[0-9]{3}-[a-f]{2}", text)


def test_json_schema(tmp_path: Path) -> None:
    sampling = Sampling(max_new_tokens=40, temperature=1.0, json_schema=json.dumps(SCHEMA))
    value = json.loads(generated(CompiledBackend(), save_model("gpt2", tmp_path), sampling))
    assert isinstance(value["n"], bool)


def test_a_wrong_regex_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"regex: ") as error:
        generated(CompiledBackend(), save_model("llama", tmp_path), Sampling(regex="[0-9"))
    assert "\n" not in str(error.value)


def test_stop_strings(tmp_path: Path) -> None:
    words, folder = tokenizer(), save_model("llama", tmp_path)
    words.save_pretrained(folder)
    backend = CompiledBackend()
    backend.load(ModelSource(str(folder)))
    whole = words.decode(backend.generate([Request([40], sampling=Sampling(max_new_tokens=12))])[0].ids)
    stop = whole[3:5]
    found = backend.generate([Request([40], sampling=Sampling(max_new_tokens=12, stop=(stop,)))])[0]
    assert found.finish == "stop" and words.decode(found.ids) == whole[: whole.index(stop) + 2]
