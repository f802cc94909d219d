"""Re-ranking with a picture's keys and values projected once for all its texts, against once for every pair.

    python benchmarks/reranking.py --device cuda            # ViT-B/16 at 384 px, k = 128
    python benchmarks/reranking.py --size tiny --repeats 5  # model/net=albef_tiny_vit at 48 px, on a CPU

Random weights and tokens: the work is the same. Both ways score equal pairs in alternation; medians.
"""

import argparse
import json
import time
from functools import partial
from statistics import median

from alignlab.evaluation.encoding import EncodedSet
from alignlab.evaluation.reranking import score_pairs
from alignlab.models.albef import Albef, AlbefEncoder
from alignlab.models.vision import vision_transformer

import torch
from measuring import check_device, device_option
from torch import Tensor

SIZES = {  # vision, the rest, pixels
    "base": ({}, {}, 384),
    "tiny": (
        {"patch_size": 8, "width": 128, "depth": 4, "heads": 4},
        {"text_width": 128, "heads": 4, "text_layers": 3, "fusion_layers": 3, "embed_dim": 64},
        48,
    ),
}


@torch.no_grad()
def plainly(net: Albef, encoded: EncodedSet, image: Tensor, text: Tensor, rows: int) -> Tensor:
    """Scores of pairs, a pass of so many pairs at a time, each with keys and values of its own."""
    scores = []
    for pictures, texts in zip(image.split(rows), text.split(rows), strict=True):
        mask = encoded.text_mask[texts]
        longest = int(mask.sum(1).max())
        states = net.image_states(encoded.image_tokens[pictures])
        logits = net.match(states, encoded.text_tokens[texts][:, :longest], mask[:, :longest]).float()
        scores.append(logits[:, 1] - logits[:, 0])
    return torch.cat(scores)


def main() -> None:
    """A line of JSON: seconds of either way, their ratio, the largest difference of a score."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", choices=SIZES, default="base")
    device_option(parser)
    parser.add_argument("--pictures", type=int, default=16)
    parser.add_argument("--k", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rows", type=int, default=128, help="pairs of a pass")
    options = parser.parse_args()
    check_device(options.device)
    vision, rest, pixels = SIZES[options.size]
    torch.manual_seed(0)
    tower = partial(vision_transformer, image_size=pixels, **vision)
    net = Albef(partial(AlbefEncoder, tower, **rest), vocab_size=1000).eval().to(options.device)
    width, patches = net.encoder.embeddings.word.embedding_dim, net.encoder.vision.grid[0] ** 2
    mask = torch.arange(options.tokens) < torch.randint(options.tokens // 2, options.tokens + 1, (options.k, 1))
    device = torch.device(options.device)
    encoded = EncodedSet(
        text_features=torch.randn(options.k, 4, device=device),
        image_features=torch.randn(options.pictures, 4, device=device),
        image_of_text=torch.zeros(options.k, dtype=torch.int64, device=device),
        text_tokens=torch.randn(options.k, options.tokens, width, device=device),
        text_ids=mask.to(device, torch.int64),
        text_mask=mask.to(device),
        image_tokens=torch.randn(options.pictures, patches + 1, net.encoder.vision.width, device=device),
        image_index=torch.arange(options.pictures, device=device),
        image_rank=torch.zeros(options.pictures, dtype=torch.int64, device=device),
    )
    image = torch.arange(options.pictures, device=device).repeat_interleave(options.k)
    text = torch.arange(options.k, device=device).repeat(options.pictures)
    ways = {
        "once a picture": partial(score_pairs, net, encoded, image, text, texts_per_pass=options.rows),
        "once a pair": partial(plainly, net, encoded, image, text, options.rows),
    }
    seconds, scores = {name: [] for name in ways}, {}
    for number in range(options.repeats + 1):
        for name, way in ways.items():
            begin = time.perf_counter()
            scores[name] = way().cpu()
            if number:  # the first warms up
                seconds[name].append(time.perf_counter() - begin)
    found = {name: median(times) for name, times in seconds.items()}
    off = (scores["once a picture"] - scores["once a pair"]).abs().max().item()
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    ratio = found["once a pair"] / found["once a picture"]
    print(
        json.dumps(
            {"size": options.size, "k": options.k, "where": where, **found, "ratio": ratio, "largest difference": off}
        )
    )


if __name__ == "__main__":
    main()
