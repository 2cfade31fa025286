"""Encode, feed and search with a cluster: Ray Data's datasets in, datasets and a ledger out.

Every worker is an actor that reads its part of a dataset, so no machine ever holds the whole.
"""

from __future__ import annotations

from colbert_vespa.ray.encoding import encode
from colbert_vespa.ray.feeding import ClusterFeed, feed
from colbert_vespa.ray.pools import Workers
from colbert_vespa.ray.searching import search

__all__ = ["ClusterFeed", "Workers", "encode", "feed", "search"]
