"""Documents in: sources, survey, encoding, and two targets (a Vespa application, a local index)."""

from feeder.pipeline import FeedProgress, FeedSummary
from feeder.run import FeedOptions, FeedRun, feed, start_feed
from feeder.sources import Collection, FileSource, Query, open_sources, read_collection

__all__ = [
    "Collection",
    "FeedOptions",
    "FeedProgress",
    "FeedRun",
    "FeedSummary",
    "FileSource",
    "Query",
    "feed",
    "open_sources",
    "read_collection",
    "start_feed",
]
