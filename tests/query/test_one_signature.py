"""`SearchOptions` is what a search can be asked; whatever passes a search on has its names and defaults."""

import inspect
from dataclasses import fields
from typing import get_type_hints

import pytest

from colbert_vespa.cli.search_commands import search as search_command
from query import AsyncClient, Client
from query.core import Core
from query.options import SearchOptions
from query.types import Query, SearchResult

OPTIONS = {name: p.replace(annotation=p.empty) for name, p in inspect.signature(SearchOptions).parameters.items()}
OPERATIONS = ["get", "rerank", "score", "search", "search_many", "select", "vectors"]
NOT_OF_A_SEARCH = {
    "vectors", "query", "address", "bundle", "require_full", "heatmap", "json_output", "device", "device_id",
}  # fmt: skip
NOT_ON_THE_COMMAND_LINE = {"ids"}


def parameters(function):
    found = list(inspect.signature(function).parameters.values())[1:]
    return {p.name: p.replace(annotation=p.empty) for p in found}


def test_every_field_of_the_options_is_an_argument():
    assert set(OPTIONS) == {field.name for field in fields(SearchOptions)}
    for function in (Client.search, AsyncClient.search, AsyncClient.stages):
        assert parameters(function) == {"query": parameters(function)["query"], **OPTIONS}
    assert parameters(Client.search_many) == {"queries": parameters(Client.search_many)["queries"], **OPTIONS}


def test_type_hints_are_those_of_the_options():
    hints, options = get_type_hints(Client.search), get_type_hints(SearchOptions)
    assert hints == {"query": Query, "return": SearchResult, **{name: options[name] for name in OPTIONS}}


@pytest.mark.parametrize("name", OPERATIONS)
def test_both_clients_show_the_operation_of_their_core(name):
    operation = getattr(Core, name)
    answer = inspect.signature(operation).return_annotation.removeprefix("Plan[").removesuffix("]")
    for method in (getattr(Client, name), getattr(AsyncClient, name)):
        assert method.__doc__ == operation.__doc__ and inspect.signature(method).return_annotation == answer
        assert "options" in parameters(operation) or parameters(method) == parameters(operation)
    assert inspect.iscoroutinefunction(getattr(AsyncClient, name))
    assert get_type_hints(getattr(Client, name))["return"] == get_type_hints(getattr(AsyncClient, name))["return"]


def test_the_clients_have_the_same_operations():
    public = [
        {name for name, _ in inspect.getmembers(kind, inspect.isfunction) if name[0] != "_"} for kind in (Client, AsyncClient)
    ]
    assert public[0] == {*OPERATIONS, "close"}
    assert public[1] == {*OPERATIONS, "close", "close_all", "stages"}


def test_the_command_line_has_them():
    asked = {
        "weights" if name == "weight" else name: p.default for name, p in inspect.signature(search_command).parameters.items()
    }
    assert set(asked) - NOT_OF_A_SEARCH == set(OPTIONS) - NOT_ON_THE_COMMAND_LINE
    assert all(asked[name] == OPTIONS[name].default for name in set(asked) - NOT_OF_A_SEARCH)


def integrations():
    """Each with the names that it has for options of a search."""
    ours, fusing = ("k", "where", "candidates", "rerank_with", "rerank_with_top"), ("weights", "fusion", "dense")
    langchain, llamaindex = pytest.importorskip("colbert_vespa.langchain"), pytest.importorskip("colbert_vespa.llamaindex")
    haystack = pytest.importorskip("colbert_vespa.haystack")
    yield langchain.ColbertRetriever.from_address, dict.fromkeys((*ours, *fusing, "index"))
    yield langchain.ColbertDocumentIndex.from_address, dict.fromkeys(ours)
    yield llamaindex.ColbertRetriever.from_address, dict.fromkeys((*ours, *fusing))
    yield llamaindex.ColbertRetriever.__init__, dict.fromkeys((*ours, *fusing, "index"))
    yield haystack.ColbertRetriever.__init__, dict.fromkeys((*ours, *fusing)) | {"k": "top_k", "where": "filters"}


def test_integrations_have_their_names_and_defaults():
    for function, names in integrations():
        taken = inspect.signature(function).parameters
        for name, theirs in names.items():
            assert taken[theirs or name].default == OPTIONS[name].default, (function, name)
