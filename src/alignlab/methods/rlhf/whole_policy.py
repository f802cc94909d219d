"""A policy whose weights a strategy cuts up, as it speaks: rollouts and answers read copies that hold whole weights
only meanwhile.

Two thirds and more of what training keeps are gradients and the optimizer's states, which stay in parts all the time.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from alignlab.distributed.copies import Spread, WholeCopy
from alignlab.models.language.actor_critic import ActorCritic


class WholePolicy:
    """Copies of a net's policy and reference; to be made before a strategy cuts the net up.

    A policy with adapters is its own reference. A reference of its own is frozen: every rank keeps its part of it, and
    it is whole while it is asked. All ranks enter and leave the contexts together.

    Args:
        begin, end: called when the policy's weights have come, and before they go.
    """

    def __init__(self, net: ActorCritic, begin: Callable[[], None], end: Callable[[], None]) -> None:
        frozen = net.frozen_reference
        self._begin, self._end, self._depth = begin, end, 0
        self._cut, self._policy = net, WholeCopy(net.model)
        self._reference = None if frozen is None else Spread(frozen)
        self.net = ActorCritic(self._policy.module, "none", False if frozen is None else frozen)

    @property
    def num_bytes(self) -> int:
        """Of all that is whole together while prompts are answered: the policy, and the reference if it is its own."""
        return self._policy.num_bytes + (0 if self._reference is None else self._reference.num_bytes)

    @contextmanager
    def policy(self) -> Iterator[None]:
        """Within: `net` holds the policy's weights as they are now."""
        with self._policy.filled():
            self._depth += 1
            try:
                if self._depth == 1:
                    self._begin()
                yield
            finally:
                self._depth -= 1
                if not self._depth:
                    self._end()

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Within: the reference can be asked, the cut-up net's too."""
        with ExitStack() as stack:
            if self._reference is not None:
                weight = self._cut.head.weight
                stack.enter_context(self._reference.gathered(weight.device, weight.dtype))
            yield
