"""A backend as a model of lm-evaluation-harness: it answers the harness's three kinds of requests.

Text becomes tokens as with the harness's own `hf` model, so that numbers agree.
"""

from collections.abc import Sequence
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from alignlab.inference.backend import Backend, Request, Sampling
from alignlab.tasks.job import Subject

MAX_GEN_TOKENS = 256  # of a task that says nothing, as the harness has it
DEFAULT_CONTEXT = 2048  # of a model without a limit of its own
KNOWN = {"do_sample", "temperature", "top_k", "top_p", "min_p"}  # of a task's settings for generation


class ServedLm(TemplateLM):
    """What `lm_eval.simple_evaluate(model=...)` takes, around a backend that is loaded.

    Args:
        subject: backend, tokenizer and the model's longest context.
        seed: of sampled answers; each request has one of its own.
    """

    def __init__(self, subject: Subject, seed: int = 0) -> None:
        super().__init__()
        self.backend_of_ours: Backend = subject.backend
        self.tokenizer, self.seed = subject.tokenizer, seed
        # A backend that scores a text reads its last token too.
        self.max_length = (subject.context_length or DEFAULT_CONTEXT) - 1

    @property
    def eot_token_id(self) -> int:
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that has nothing before it."""
        bos = self.tokenizer.bos_token_id
        return self.eot_token_id if bos is None else bos

    @property
    def tokenizer_name(self) -> str:
        """Part of the harness's cache key of rendered chats."""
        return self.tokenizer.name_or_path.replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Ids of a text; special tokens as the tokenizer adds them, but no second beginning."""
        bos = self.tokenizer.bos_token
        if add_special_tokens is None and bos and string.startswith(bos):
            add_special_tokens = False
        settings = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return self.tokenizer.encode(string, **settings)

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A chat as text, by the model's own template."""
        return self.tokenizer.apply_chat_template(
            chat_history,
            tokenize=False,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        """Log-likelihood of each continuation after its context, nats, and whether greedy decoding would say it; of
        what is longer than the context the end counts.
        """
        rows = [(context + continuation)[-(self.max_length + 1) :] for _, context, continuation in requests]
        lengths = [len(continuation) for _, _, continuation in requests]
        scores = self.backend_of_ours.score(rows)
        greedy = self._greedy([row[:-n] for row, n in zip(rows, lengths, strict=True)], lengths)
        return [
            (sum(score[-n:]), row[-n:] == said[:n])
            for row, n, score, said in zip(rows, lengths, scores, greedy, strict=True)
        ]

    def _greedy(self, contexts: Sequence[list[int]], lengths: Sequence[int]) -> list[list[int]]:
        """What the model says after each context, at least so many tokens; equal contexts are asked once."""
        longest: dict[tuple[int, ...], int] = {}
        for context, length in zip(contexts, lengths, strict=True):
            longest[tuple(context)] = max(length, longest.get(tuple(context), 0))
        requests = [
            Request(list(context), 0, Sampling(max_new_tokens=length, ignore_eos=True))
            for context, length in longest.items()
        ]
        said = dict(zip(longest, self._completed(requests), strict=True))
        return [said[tuple(context)] for context in contexts]

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihood of whole texts, each token counted once, in windows where they are longer than the context."""
        rows, counts = [], []
        for request in requests:
            ids = self.tok_encode(request.args[0])
            windows = get_rolling_token_windows(
                token_list=ids, prefix_token=self.prefix_token_id, max_seq_len=self.max_length, context_len=1
            )
            pairs = [make_disjoint_window(window) for window in windows]
            rows += [(context + new, len(new)) for context, new in pairs]
            counts.append(len(pairs))
        scores = self.backend_of_ours.score([row for row, _ in rows])
        sums = iter([sum(score[-n:]) for score, (_, n) in zip(scores, rows, strict=True)])
        return [sum(next(sums) for _ in range(count)) for count in counts]

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Answers, cut before the first of the task's stop strings.

        Raises:
            ValueError: a task asks for what backends don't know, or for more tokens than the context has.
        """
        eos, asked, stops = self.tokenizer.decode([self.eot_token_id]), [], []
        for number, request in enumerate(requests):
            text, given = request.args
            settings = normalize_gen_kwargs(given, MAX_GEN_TOKENS)
            stop, new = handle_stop_sequences(settings.pop("until"), eos=eos), settings.pop("max_gen_toks")
            if unknown := set(settings) - KNOWN:
                raise ValueError(f"the task asks for {', '.join(sorted(unknown))}; backends know {', '.join(KNOWN)}")
            if new >= self.max_length:
                raise ValueError(f"the task asks for {new} tokens; this model's context has {self.max_length + 1}")
            settings.pop("do_sample", None)
            sampling = Sampling(max_new_tokens=new, stop=tuple(s for s in stop if s and s != eos), **settings)
            asked.append(Request(self.tok_encode(text)[-(self.max_length - new) :], self.seed + number, sampling))
            stops.append(stop)
        said = self._completed(asked)
        texts = (self.tokenizer.decode(ids, skip_special_tokens=True) for ids in said)
        return [postprocess_generated_text(text, stop, None) for text, stop in zip(texts, stops, strict=True)]

    def _completed(self, requests: Sequence[Request]) -> list[list[int]]:
        done = self.backend_of_ours.generate(requests)
        for completion in done:
            if completion.error is not None:
                raise ValueError(completion.error)
        return [completion.ids for completion in done]
