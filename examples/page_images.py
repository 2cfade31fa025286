"""Pages as images: vectors of patches that another model made, and where on the page a query matches.

    python examples/page_images.py FOLDER

ColPali or ColQwen would make the rows; here a page is a grid of patches, and a patch of one kind has that kind's direction and
some noise. The folder gets a bundle without a model, the pages as NPZ, and an index.
"""

import sys
from pathlib import Path

import numpy as np

from colbert_vespa import Client
from exporter.ready import ReadyOptions, make_ready_bundle
from feeder import FeedOptions, feed, open_sources
from late_interaction.plaid import Storage

HEIGHT, WIDTH, DIM = 32, 32, 128
KINDS = ("paper", "table", "chart", "stamp")
RANDOM = np.random.default_rng(0)
MEANING = dict(zip(KINDS, np.linalg.qr(RANDOM.standard_normal((DIM, len(KINDS))))[0].T, strict=True))


def patches(page: np.ndarray) -> np.ndarray:
    """Unit rows `[HEIGHT * WIDTH, DIM]` of a grid of kinds, row by row, as a vision model would give them."""
    rows = np.stack([MEANING[kind] for kind in page.ravel()]) + 0.03 * RANDOM.standard_normal((page.size, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def made_up_page(number: int) -> np.ndarray:
    """Paper, with a table, chart or stamp at a place of its own."""
    page = np.full((HEIGHT, WIDTH), KINDS[0], dtype="<U8")
    top, left = (7 * number) % 24, (5 * number) % 24
    page[top : top + 6, left : left + 8] = KINDS[1 + number % 3]
    return page


def index_pages(folder: Path, count: int = 30) -> None:
    """Writes pages.npz, a bundle whose codebook is trained on them, and the index."""
    np.savez(folder / "pages.npz", **{f"page-{n}": patches(made_up_page(n)) for n in range(count)})
    pages = open_sources([str(folder / "pages.npz")])[0]
    bundle = make_ready_bundle(folder / "bundle", ReadyOptions(DIM, rows=2000, source="made-up"), sample=pages)
    summary = feed(pages, FeedOptions(folder / "index", folder / "journal", bundle, storage=Storage(refine=True)))
    print(f"{summary.acknowledged} pages of {HEIGHT * WIDTH} rows")


def grid(client: Client, query: np.ndarray, passage_id: str) -> np.ndarray:
    """`[HEIGHT, WIDTH]`: the similarity of each patch with the row of the query that is nearest."""
    rows = client.vectors([passage_id])[passage_id]
    return (rows @ query.T).max(axis=1).reshape(HEIGHT, WIDTH)


def main(folder: Path) -> list[str]:
    index_pages(folder)
    query = MEANING["stamp"][None].astype(np.float32)  # what a text or an image encoder would give
    with Client(folder / "index") as client:
        hits = client.search(query, 3).hits
        for hit in hits:
            print(f"{hit.rank}. {hit.id} {hit.score:.3f}")
        for line in grid(client, query, hits[0].passage_id) > 0.5:
            print("".join("#" if match else "." for match in line))
    return [hit.id for hit in hits]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
