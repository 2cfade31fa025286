"""An application deployed on Vespa, fed and searched: python examples/vespa_compose.py SOURCE BUNDLE PACKAGE "a question"

Start Vespa first: docker compose up -d --wait. SOURCE is whatever `colbert-vespa feed` reads; PACKAGE is a folder to write.
"""

import sys
from pathlib import Path

from colbert_vespa import Bundle, Client, FeedOptions, SearchResult, build_package, default_settings, deploy, feed
from feeder import open_sources
from late_interaction.metadata import SchemaInference

CONFIG_SERVER, VESPA = "http://localhost:19071", "http://localhost:8080"


def deploy_for(source: str, bundle: Bundle, package: Path, config_server: str, vespa: str) -> list[str]:
    """The metadata fields that the application has: those of the documents. Waits until it answers."""
    fields = SchemaInference.of((document.id, document.metadata) for document in open_sources([source])[0])
    build_package(bundle, default_settings(bundle, fields)).write(package)
    deploy(package, config_server, query_url=vespa, progress=print)
    return list(fields.fields)


def feed_into(source: str, bundle: Bundle, journal: Path, vespa: str) -> int:
    """How many documents were new or changed; those that Vespa has already are neither encoded nor sent."""
    summary = feed(open_sources([source])[0], FeedOptions(vespa, journal, bundle))
    print(f"{summary.acknowledged} fed, {summary.already_there} already there, {summary.dead_lettered} refused")
    return summary.acknowledged


def search(question: str, bundle: Bundle, vespa: str) -> SearchResult:
    with Client(vespa, bundle=bundle) as client:
        return client.search(question, 3)


def main(source: str, bundle: Bundle, package: Path, question: str, config_server: str, vespa: str) -> SearchResult:
    print("metadata:", ", ".join(deploy_for(source, bundle, package, config_server, vespa)) or "none")
    feed_into(source, bundle, package.with_suffix(".journal"), vespa)
    found = search(question, bundle, vespa)
    for hit in found.hits:
        print(f"{hit.rank}. {hit.id}  {hit.score:.2f}  {hit.text[:80]}")
    return found


if __name__ == "__main__":
    documents, model, target, asked = sys.argv[1:]
    main(documents, Bundle.open(model), Path(target), asked, CONFIG_SERVER, VESPA)
