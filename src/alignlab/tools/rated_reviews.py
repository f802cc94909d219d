"""Makes the built-in files of rated reviews from the source archive of vaderSentiment.

    pip download --no-binary :all: --no-deps vaderSentiment==3.3.2
    python -m alignlab.tools.rated_reviews vaderSentiment-3.3.2.tar.gz src/alignlab/data/language

One line a text: the ratings of all its raters as digits 0 to 8 (rating + 4, in the file's order), a tab, the text.
White space is joined, a text that occurs twice keeps its first place and the ratings of both. The same archive gives
the same bytes.
"""

import ast
import gzip
import io
import sys
import tarfile
from pathlib import Path

INNER = "additional_resources/hutto_ICWSM_2014.tar.gz"
PARTS = {"movie_reviews.tsv.gz": "movieReviewSnippets", "product_reviews.tsv.gz": "amazonReviewSnippets"}


def read(archive: Path, name: str) -> dict[str, list[int]]:
    """Text -> its single ratings, -4 to 4, of one of the archive's lists."""
    with tarfile.open(archive) as outer:
        member = next(m for m in outer if m.name.endswith(INNER))
        with tarfile.open(fileobj=io.BytesIO(outer.extractfile(member).read())) as inner:
            rows = {
                kind: _rows(inner.extractfile(f"hutto_ICWSM_2014/{name}_{kind}.txt").read())
                for kind in ("GroundTruth", "anonDataRatings")
            }
    ratings = {row[0]: ast.literal_eval(row[3]) for row in rows["anonDataRatings"]}
    by_text: dict[str, list[int]] = {}
    for key, _, text in rows["GroundTruth"]:
        if key in ratings:
            by_text.setdefault(" ".join(text.split()), []).extend(ratings[key])
    return by_text


def write(ratings_of: dict[str, list[int]], file: Path) -> None:
    """Writes a list without a time stamp, so that equal content means equal bytes."""
    lines = (f"{''.join(str(r + 4) for r in ratings)}\t{text}\n" for text, ratings in ratings_of.items())
    file.write_bytes(gzip.compress("".join(lines).encode(), compresslevel=9, mtime=0))


def _rows(content: bytes) -> list[list[str]]:
    return [line.split("\t") for line in content.decode("utf-8", errors="replace").splitlines() if line.strip()]


def main() -> None:
    archive, folder = map(Path, sys.argv[1:])
    for file, name in PARTS.items():
        ratings_of = read(archive, name)
        write(ratings_of, folder / file)
        print(f"{file}: {len(ratings_of)} texts, {sum(map(len, ratings_of.values()))} ratings")


if __name__ == "__main__":
    main()
