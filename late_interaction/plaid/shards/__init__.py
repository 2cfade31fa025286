"""An index of several shards on one machine: ordinary local indexes, one worker process each, and a router that merges."""

from late_interaction.plaid.shards.index import ShardedIndex
from late_interaction.plaid.shards.layout import Sharding
from late_interaction.plaid.shards.settings import ShardSettings

__all__ = ["ShardSettings", "ShardedIndex", "Sharding"]
