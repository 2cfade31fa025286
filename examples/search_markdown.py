"""A folder of Markdown files, indexed and searched: python examples/search_markdown.py FOLDER INDEX "a question"

The first run makes a bundle beside the index, from MiniLM (pip install 'colbert-vespa[demo]'). Later runs encode the files that
are new or changed.
"""

import sys
from pathlib import Path

from colbert_vespa import Client, FeedOptions, SearchResult, feed
from exporter import ExportOptions, export
from feeder import Splitting, open_sources
from late_interaction.documents import passage_text


def make_bundle(folder: str, output: Path, checkpoint: str = "minilm") -> None:
    """A bundle of `checkpoint`; a plain encoder, as MiniLM is, gets a projection that is fitted to the files of `folder`."""
    texts = [passage_text(page.title, page.text) for page in open_sources([folder])[0]]
    export(checkpoint, output, ExportOptions(quantize=("int8",), sample=texts))


def index_folder(folder: str, bundle: Path, index: Path) -> int:
    """How many files were new or changed. A passage is a section below a heading, or a part of one."""
    options = FeedOptions(index, index.with_suffix(".journal"), bundle, splitting=Splitting("markdown"))
    return feed(open_sources([folder])[0], options).acknowledged


def search(index: Path, question: str) -> SearchResult:
    """The best passage of each of the three best files, with the words that matched."""
    with Client(index) as client:
        return client.search(question, 3, group=True, explain=True)


if __name__ == "__main__":
    pages, target, asked = sys.argv[1:]
    made = Path(target).with_suffix(".bundle")
    if not made.exists():
        make_bundle(pages, made)
    print(index_folder(pages, made, Path(target)), "files read")
    for hit in search(Path(target), asked).hits:
        print(f"\n{hit.rank}. {hit.id}  {hit.title}  {hit.score:.2f}\n{hit.text[:300]}")
