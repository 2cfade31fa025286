"""Documents in: sources, survey, encoding, and two targets (a Vespa application, a local index)."""

from feeder.encoding.passages import Splitting
from feeder.feeding.ledger import FeedProgress, FeedSummary
from feeder.feeding.options import FeedOptions
from feeder.feeding.run import FeedRun, feed, feed_async, start_feed
from feeder.sources import Collection, FileSource, Query, open_sources, read_collection

__all__ = [
    "Collection",
    "FeedOptions",
    "FeedProgress",
    "FeedRun",
    "FeedSummary",
    "FileSource",
    "Query",
    "Splitting",
    "feed",
    "feed_async",
    "open_sources",
    "read_collection",
    "start_feed",
]
