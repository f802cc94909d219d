"""From rendered texts to batches of language models: flat storage, packing, grouping by length, the order of an epoch.

Legend: N texts, B rows of a batch, T tokens.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from alignlab.data.language.rendering import Content, Rendered, Renderer
from alignlab.types.language import PreferenceBatch, PromptBatch, RatedBatch, TokenBatch

Split = Literal["train", "val"]
GROUP = 32  # joint batches within which texts are sorted by length


class TokenStore:
    """Many texts in two flat arrays: 5 bytes a token instead of a Python object."""

    def __init__(self, rendered: Sequence[Rendered]) -> None:
        lengths = np.array([len(text.ids) for text in rendered], dtype=np.int64)
        ids = np.fromiter((i for text in rendered for i in text.ids), np.int32, lengths.sum())
        response = np.fromiter((r for text in rendered for r in text.response), np.bool_, lengths.sum())
        self._set(ids, response, lengths)

    @classmethod
    def of(cls, ids: np.ndarray, response: np.ndarray, lengths: np.ndarray) -> "TokenStore":
        """The same of texts that lie behind each other: ids int32, response bool, lengths (N,) int64."""
        store = cls.__new__(cls)
        store._set(ids, response, lengths)
        return store

    def _set(self, ids: np.ndarray, response: np.ndarray, lengths: np.ndarray) -> None:
        self.lengths, self._ids, self._response = lengths, ids, response
        self._start = np.concatenate([[0], np.cumsum(lengths)])

    def __len__(self) -> int:
        return len(self.lengths)

    def ids(self, index: int) -> np.ndarray:
        """(T,) int32."""
        return self._ids[self._start[index] : self._start[index + 1]]

    def response(self, index: int) -> np.ndarray:
        """(T,) bool."""
        return self._response[self._start[index] : self._start[index + 1]]


class Preferences(NamedTuple):
    """What people think of some pairs."""

    share: np.ndarray  # (P,) float32, share of raters that prefers the first
    margin: np.ndarray  # (P,) float32, difference of the ratings, 0 where unknown


def pack(lengths: np.ndarray, capacity: int) -> list[list[int]]:
    """Numbers of the texts of each row of `capacity` tokens: the longest first, each into the fullest row that has
    room (best fit decreasing).
    """
    rows: list[list[int]] = []
    with_room: dict[int, list[int]] = {}  # tokens left -> rows
    rooms: list[int] = []  # keys of with_room, sorted
    for index in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[index])
        place = bisect_left(rooms, length)
        if place == len(rooms):
            rows.append([index])
            row, left = len(rows) - 1, capacity - length
        else:
            room = rooms[place]
            row = with_room[room].pop()
            if not with_room[room]:
                del with_room[room], rooms[place]
            rows[row].append(index)
            left = room - length
        if left > 0:
            if left not in with_room:
                with_room[left] = []
                insort(rooms, left)
            with_room[left].append(row)
    return rows


def epoch_order(lengths: np.ndarray, joint_batch: int, seed: int, epoch: int) -> np.ndarray:
    """A random order of an epoch in which the rows of a joint batch are about equally long.

    Texts are shuffled, sorted by length within stretches of `GROUP` joint batches, and the batches shuffled. What
    doesn't fill a batch comes last.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    full = len(order) // joint_batch * joint_batch
    stretches = [order[i : min(i + GROUP * joint_batch, full)] for i in range(0, full, GROUP * joint_batch)]
    grouped = [stretch[np.argsort(lengths[stretch], kind="stable")] for stretch in stretches]
    batches = np.concatenate([*grouped, order[:0]]).reshape(-1, joint_batch)
    return np.concatenate([rng.permutation(batches).reshape(-1), order[full:]])


class Shuffled(Dataset):
    """What has an own order in every epoch: serial number = epoch x length + place. Without `seed` the order is that
    of the numbers. `batch_type` is that of a batch of it.
    """

    batch_type: type | None = None

    def __init__(self, seed: int | None) -> None:
        self.seed = seed
        self.joint_batch = 1  # set by the data module, which knows the number of processes
        self._order: tuple[tuple[int, int], np.ndarray] | None = None

    def row_lengths(self, epoch: int) -> np.ndarray:
        """(N,) tokens of each row of an epoch."""
        raise NotImplementedError

    def rows(self, serials: Sequence[int]) -> tuple[int, np.ndarray]:
        """The epoch of some serial numbers, and the rows at their places."""
        epoch, places = serials[0] // len(self), np.array(serials) % len(self)
        if self.seed is None:
            return epoch, places
        if self._order is None or self._order[0] != (epoch, self.joint_batch):
            order = epoch_order(self.row_lengths(epoch), self.joint_batch, self.seed, epoch)
            self._order = ((epoch, self.joint_batch), order)
        return epoch, self._order[1][places]


class RowSource(Protocol):
    """What a data set of texts has to offer; it is made from `split_seed`, `val_share` and its own settings."""

    def rows(self, split: Split, renderer: Renderer, seed: int) -> Shuffled:
        """The rows of a split, as ids; `seed` is that of their order in each epoch."""


class TextRows(Shuffled):
    """Rows of one text each, or with `capacity` of several that fill so many tokens (packing)."""

    batch_type = TokenBatch

    def __init__(self, store: TokenStore, seed: int | None, capacity: int | None = None) -> None:
        super().__init__(seed)
        self.store = store
        self._rows = [[i] for i in range(len(store))] if capacity is None else pack(store.lengths, capacity)
        self._lengths = np.array([store.lengths[row].sum() for row in self._rows], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._rows)

    def row_lengths(self, epoch: int) -> np.ndarray:
        return self._lengths

    def __getitems__(self, serials: Sequence[int]) -> TokenBatch:
        return token_batch(self.store, [self._rows[row] for row in self.rows(serials)[1]])


class ComparisonRows(Shuffled):
    """Groups of texts of which every two are compared; a pair is a group of two.

    Args:
        groups_of: epoch -> (N, K) numbers of the texts of every group, N and K the same in all epochs.
        preference: numbers of the first and second texts (P,), (P,) -> `Preferences`.
    """

    batch_type = PreferenceBatch

    def __init__(
        self,
        store: TokenStore,
        groups_of: Callable[[int], np.ndarray],
        preference: Callable[[np.ndarray, np.ndarray], Preferences],
        seed: int | None,
    ) -> None:
        super().__init__(seed)
        self.store, self.preference = store, preference
        self._groups_of = groups_of
        self._drawn = (0, groups_of(0))

    def __len__(self) -> int:
        return len(self._drawn[1])

    def groups(self, epoch: int) -> np.ndarray:
        """(N, K) texts of the groups of an epoch."""
        if self._drawn[0] != epoch:
            self._drawn = (epoch, self._groups_of(epoch))
        return self._drawn[1]

    def row_lengths(self, epoch: int) -> np.ndarray:
        return self.store.lengths[self.groups(epoch)].max(1)

    def __getitems__(self, serials: Sequence[int]) -> PreferenceBatch:
        epoch, rows = self.rows(serials)
        groups = self.groups(epoch)[rows]
        texts, size = groups.reshape(-1), groups.shape[1]
        above, below = np.triu_indices(size, 1)
        starts = np.arange(len(groups))[:, None] * size
        first, second = (starts + above).reshape(-1), (starts + below).reshape(-1)
        share, margin = self.preference(texts[first], texts[second])
        swap = share < 0.5
        first, second = np.where(swap, second, first), np.where(swap, first, second)
        share, margin = np.where(swap, 1 - share, share), np.where(swap, -margin, margin)
        ids, mask = right_padded([self.store.ids(i) for i in texts])
        target = targets([self.store.response(i) for i in texts])
        pairs = (torch.from_numpy(part) for part in (first, second, share, margin))
        return PreferenceBatch(ids, mask, target, *pairs, torch.from_numpy(texts), tuple(texts.tolist()))


class RatedRows(Shuffled):
    """Single texts of a set, each once, in its order."""

    def __init__(self, store: TokenStore) -> None:
        super().__init__(None)
        self.store = store

    def __len__(self) -> int:
        return len(self.store)

    def __getitems__(self, indices: Sequence[int]) -> RatedBatch:
        ids, mask = right_padded([self.store.ids(i) for i in indices])
        return RatedBatch(ids, mask, torch.tensor(list(indices)))


class PromptRows(Shuffled):
    """Prompts, padded on the left, with what they were rendered from and the other columns of their rows."""

    batch_type = PromptBatch

    def __init__(
        self,
        prompts: list[list[int]],
        seed: int | None,
        contents: Sequence[Content] | None = None,
        columns: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        super().__init__(seed)
        self.prompts, self.contents, self.columns = prompts, contents, columns
        self._lengths = np.array([len(prompt) for prompt in prompts], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.prompts)

    def row_lengths(self, epoch: int) -> np.ndarray:
        return self._lengths

    def __getitems__(self, serials: Sequence[int]) -> PromptBatch:
        return self.batch(self.rows(serials)[1])

    def batch(self, rows: np.ndarray) -> PromptBatch:
        """Prompts by their numbers."""
        longest = int(self._lengths[rows].max())
        ids = torch.zeros(len(rows), longest, dtype=torch.long)
        mask = torch.zeros(len(rows), longest, dtype=torch.bool)
        for place, row in enumerate(rows):
            length = self._lengths[row]
            ids[place, longest - length :] = torch.tensor(self.prompts[row])
            mask[place, longest - length :] = True
        contents = None if self.contents is None else [self.contents[row] for row in rows]
        columns = None if self.columns is None else [dict(self.columns[row]) for row in rows]
        return PromptBatch(ids, mask, torch.from_numpy(rows), contents, columns)


def token_batch(store: TokenStore, rows: Sequence[Sequence[int]]) -> TokenBatch:
    """Rows of one or several texts each as tensors.

    A text's first token is never predicted: nothing stands before it.
    """
    ids, _ = right_padded([np.concatenate([store.ids(i) for i in row]) for row in rows])
    document, _ = right_padded([np.repeat(np.arange(1, len(row) + 1), store.lengths[list(row)]) for row in rows])
    position, _ = right_padded([np.concatenate([np.arange(store.lengths[i]) for i in row]) for row in rows])
    target = targets([np.concatenate([_predicted(store.response(i)) for i in row]) for row in rows])
    return TokenBatch(ids, document, position, target, any(len(row) > 1 for row in rows))


def targets(responses: Sequence[np.ndarray]) -> Tensor:
    """(M,) int64: places in the flattened, right-padded (B * T) of the marked tokens, rows' first ones left out."""
    longest = max(len(row) for row in responses)
    return torch.from_numpy(
        np.concatenate([np.flatnonzero(_predicted(r)) + i * longest for i, r in enumerate(responses)])
    )


def _predicted(response: np.ndarray) -> np.ndarray:
    """The mask without a text's first token."""
    predicted = response.copy()
    predicted[:1] = False
    return predicted


def right_padded(rows: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """(B, T) int64 filled up with 0, and the mask (B, T) of what is there.

    The id that pads doesn't matter: masks come from lengths.
    """
    lengths = torch.tensor([len(row) for row in rows])
    mask = torch.arange(int(lengths.max())) < lengths[:, None]
    padded = torch.zeros(mask.shape, dtype=torch.long)
    padded[mask] = torch.from_numpy(np.concatenate(rows).astype(np.int64))
    return padded, mask
