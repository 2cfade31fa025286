"""Feed documents: sources, survey, encoding, and two kinds of target (a Vespa application, a local index)."""

from feeder.encoding.passages import Splitting
from feeder.feeding.ledger import FeedProgress, FeedSummary
from feeder.feeding.options import FeedOptions
from feeder.feeding.run import FeedRun, feed, feed_async, start_feed
from feeder.sources import FileSource, open_sources

__all__ = [
    "FeedOptions",
    "FeedProgress",
    "FeedRun",
    "FeedSummary",
    "FileSource",
    "Splitting",
    "feed",
    "feed_async",
    "open_sources",
    "start_feed",
]
