"""One awkward batch for comparisons with other libraries: lengths from 1 to 7, three groups of four, one of them with equal scores.

Policy and critic are tables, a parameter for each place and word, so that two gradients are compared token by token.
Legend: B = 12 responses, T = 7 tokens of the longest, S tokens of a row, V words.
"""

from inspect import signature

from alignlab.configs.command_line import arguments
from alignlab.configs.explain import composed
from alignlab.configs.filling import filled
from alignlab.inference.backend import Sampling
from alignlab.methods.grpo import GrpoMethod
from alignlab.methods.ppo import PpoMethod
from alignlab.methods.rlhf.minibatch import Experience, Minibatch, Totals
from alignlab.methods.rlhf.objective import Objective, Statistics
from alignlab.methods.rlhf.parts import parts_of
from alignlab.methods.rlhf.rollout import Responses, Trajectory
from tiny_policy import make_model

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

GROUP, WORDS, LONGEST, TEMPERATURE = 4, 11, 7, 0.9
PROMPTS = [2, 2, 2, 2, 1, 1, 1, 1, 4, 4, 4, 4]
LENGTHS = [5, 1, 7, 3, 1, 6, 2, 4, 7, 1, 1, 3]
SCORES = torch.tensor([0.3, -1.2, 2.0, 0.7, *[0.1] * GROUP, 1.0, 0.0, 0.0, 1.0])


class TabularActorCritic(nn.Module):
    """What an objective asks of an `ActorCritic`, of a policy that has a row of logits for each place."""

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.logits = nn.Parameter(1.5 * torch.randn(rows, width, WORDS, generator=g))
        self.values = nn.Parameter(torch.randn(rows, width, generator=g))
        self.head = nn.Linear(WORDS, WORDS, bias=False).requires_grad_(False)
        self.head.weight.copy_(torch.eye(WORDS))
        self.value_head: nn.Module | None = nn.Identity()

    def hidden(self, ids: Tensor) -> Tensor:
        """(B, S) -> (B, S, V): the identity makes logits of them."""
        return self.logits[:, : ids.shape[1]]

    def critic_hidden(self, ids: Tensor, policy_hidden: Tensor) -> Tensor:
        """(B, S) -> (B, S, 1)."""
        return self.values[:, : ids.shape[1], None]

    def value(self, hidden: Tensor) -> Tensor:
        """(N, 1) -> (N,)."""
        return self.value_head(hidden).squeeze(-1)


def make_batch() -> tuple[TabularActorCritic, Trajectory]:
    """Policy and rollout; the policy has moved since, so that ratios lie on both sides of every clip."""
    g = torch.Generator().manual_seed(1)
    prompts, answers = ([torch.randint(WORDS, (n,), generator=g).tolist() for n in each] for each in (PROMPTS, LENGTHS))
    unread = [[0.0] * n for n in LENGTHS]
    t = Trajectory.of(Responses(prompts, answers, [n < LONGEST for n in LENGTHS], unread), torch.device("cpu"))
    net = TabularActorCritic(*t.ids.shape)
    with torch.no_grad():
        t.entropy = (-torch.where(t.mask[..., None], (p := logits(net, t).log_softmax(-1)).exp() * p, 0.0)).sum(-1)
        t.logprob = _moved(log_probs(net, t), t, 0.3, g)
        t.reference, t.sampled = _moved(t.logprob, t, 0.5, g), _moved(t.logprob, t, 0.5, g)
        t.value = _moved(values(net, t), t, 0.3, g)
    return net, t


def _moved(x: Tensor, t: Trajectory, by: float, generator: torch.Generator) -> Tensor:
    return torch.where(t.mask, x + by * torch.randn(x.shape, generator=generator), 0.0)


def states(t: Trajectory) -> Tensor:
    """The token before each response token, (B, T) int64; off the mask any."""
    steps = torch.arange(t.mask.shape[1]) - 1
    return (torch.tensor(PROMPTS)[:, None] + steps).clamp(max=t.ids.shape[1] - 2)


def logits(net: TabularActorCritic, t: Trajectory) -> Tensor:
    """Of the response tokens, at the sampling temperature, (B, T, V)."""
    rows = torch.arange(len(t.ids))[:, None]
    return net.logits[rows, states(t)] / TEMPERATURE


def log_probs(net: TabularActorCritic, t: Trajectory) -> Tensor:
    """As any library has them from logits, (B, T), 0 off the mask."""
    ids = t.ids.gather(1, states(t) + 1)
    found = logits(net, t).log_softmax(-1).gather(-1, ids[..., None]).squeeze(-1)
    return torch.where(t.mask, found, 0.0)


def values(net: TabularActorCritic, t: Trajectory) -> Tensor:
    """(B, T), 0 off the mask."""
    return torch.where(t.mask, net.values.gather(1, states(t)), 0.0)


def preset(*words: str, **changes) -> GrpoMethod | PpoMethod:
    """The method of a preset as the command line gives it, on a model that nothing here asks."""
    cfg = OmegaConf.to_container(filled(composed(arguments(words))).model, resolve=False)
    kind = PpoMethod if cfg["_target_"].endswith("PpoMethod") else GrpoMethod
    plain = {k: v for k, v in cfg.items() if k in signature(kind).parameters and isinstance(v, int | float | str)}
    plain = {k: v for k, v in plain.items() if k not in ("reward", "seed") and "${" not in str(v)}
    objective = Objective(**{k: v for k, v in cfg["objective"].items() if not k.startswith("_")})
    settings = {"objective": objective, "vocabulary": None, "response_length": LONGEST, "temperature": TEMPERATURE}
    return kind(lambda vocabulary: make_model(0), lambda prompts, responses: [], **(plain | settings | changes))


def noisy_advantage(t: Trajectory) -> Tensor:
    """Another one at each token, of both signs, (B, T)."""
    return torch.randn(t.mask.shape, generator=torch.Generator().manual_seed(4)) * t.mask


def our_loss(objective: Objective, net: TabularActorCritic, t: Trajectory, advantage: Tensor, value: bool = False):
    """The loss of a step with all rows, as `OnPolicyMethod.minibatches` hands them to the objective; of the policy alone, or with that of the critic."""
    (part,) = parts_of([range(len(t.ids))], t.lengths, "last", t.ids.device)
    e = Experience(advantage, t.value + 0.5, torch.ones(len(t.ids)))
    batch = Minibatch.of(t, e, part, Totals.of(t, e, [part]), Sampling(LONGEST, TEMPERATURE))
    net.value_head = nn.Identity() if value else None
    return objective(net, batch, Statistics())
