"""Blue and green on a real node: a second bundle's index beside the first, asked both, switched, and the old one removed."""

from __future__ import annotations

import pytest

from exporter import ExportOptions
from feeder import FeedOptions, start_feed
from late_interaction.bundle import Bundle
from late_interaction.encoder import Encoder
from query import Client
from vespa_app import AppSettings, build_package
from vespa_app.changes import build_beside
from vespa_app.deploying import deploy
from vespa_app.running import Application

pytestmark = [pytest.mark.live, pytest.mark.slow]  # four deployments

QUERY = "wait for a thread to finish"
COUNT = 60  # documents


@pytest.fixture(scope="module")
def green(tmp_path_factory, stdlib_sample):
    """The same model at 64 dimensions, with a codebook of its own; in int8, so that a config server holds both."""
    from colbert_vespa.cli.console import Output
    from colbert_vespa.cli.exporting import make_bundle
    from exporter.hub import minilm_folder

    texts = [f"{d.title} {d.text}" for d in stdlib_sample]
    path = tmp_path_factory.mktemp("green") / "bundle"
    make_bundle(Output(json_output=True), minilm_folder(), path, ExportOptions(sample=texts, dim=64, quantize=("int8",)))
    return Bundle.open(path)


def test_a_new_model_takes_over_without_a_gap(world, green, tmp_path):
    def to_node(package, name, **options):
        deploy(package.write(tmp_path / name), world.config_url, query_url=world.url, **options)

    def ask(address, bundle):
        retriever = Client(address, bundle.path)
        try:
            return [hit.id for hit in retriever.search(QUERY, 10, candidates="exhaustive").hits]
        finally:
            retriever.close()

    settings = AppSettings(
        dim=64, query_rows=green.manifest.query.length, metadata=world.settings.metadata, precision="int8",
        cluster=world.settings.cluster,
    )  # fmt: skip
    blue_hits = ask(world.url, world.bundle)
    try:
        to_node(build_beside(green, settings, world.package, switch=False).package, "both")
        assert ask(world.url, world.bundle) == blue_hits  # nobody notices
        address = f"{world.url}#passage_v2"
        options = FeedOptions(to=address, bundle=green, encoder=Encoder(green), journal=tmp_path / "journal")
        with start_feed([world.documents[:COUNT]], options) as run:
            assert run.go().acknowledged == COUNT
        green_hits = ask(address, green)
        assert len(green_hits) == 10
        assert ask(world.url, world.bundle) == blue_hits

        to_node(build_beside(green, settings, tmp_path / "both", switch=True).package, "switched")
        assert Application.read(world.url).settings.dim == 64
        assert ask(world.url, green) == green_hits
        assert ask(f"{world.url}#passage", world.bundle) == blue_hits  # the way back is open

        alone = AppSettings.from_toml(tmp_path / "switched" / "app.toml")
        to_node(build_package(green, alone), "alone", allow=("schema-removal",))
        assert ask(world.url, green) == green_hits
    finally:
        deploy(world.package, world.config_url, query_url=world.url, allow=("schema-removal",))
        options = FeedOptions(to=world.url, bundle=world.bundle, encoder=world.encoder, journal=tmp_path / "again")
        with start_feed([world.documents], options) as run:
            assert run.go().acknowledged == len(world.documents)
