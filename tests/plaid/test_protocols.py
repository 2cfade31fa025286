"""Both sides of an index, with shards or without, and of its writer have every method of the protocol, with its arguments."""

import inspect

import pytest

from late_interaction.plaid import IndexWriter, LocalIndex, PlaidIndex, PlaidWriter
from late_interaction.plaid.shards import ShardedIndex
from late_interaction.plaid.shards.writer import ShardedWriter
from query import backend
from query.local import LocalSearch
from query.vespa import VespaIndex

SIDES = [
    (PlaidIndex, LocalIndex), (PlaidIndex, ShardedIndex), (PlaidWriter, IndexWriter), (PlaidWriter, ShardedWriter),
    (backend.SearchIndex, LocalSearch), (backend.SearchIndex, VespaIndex),
]  # fmt: skip
PAIRS = [(LocalIndex, ShardedIndex), (IndexWriter, ShardedWriter), (LocalSearch, VespaIndex)]
PROTOCOLS = {LocalIndex: PlaidIndex, IndexWriter: PlaidWriter, LocalSearch: backend.SearchIndex}


def members(class_):
    kept = ("__enter__", "__exit__")
    return {name: value for name, value in vars(class_).items() if not name.startswith("_") or name in kept}


def parameters(function):
    return [(p.name, p.kind, p.default, p.annotation) for p in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize(("protocol", "class_"), SIDES)
def test_a_side_has_every_method_with_its_arguments(protocol, class_):
    for name, promised in members(protocol).items():
        if inspect.isfunction(promised):  # mypy sees to the others, which may be attributes
            assert parameters(getattr(class_, name)) == parameters(promised), name


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_what_both_sides_have_is_in_the_protocol(one, other):
    shared = members(one).keys() & members(other).keys()
    assert shared - members(PROTOCOLS[one]).keys() <= {"create", "open"}  # those are for the side that is asked
