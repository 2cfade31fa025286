"""Bodies of requests and responses.

The models are created from `SearchOptions`, the options of a search, and from the result classes of query/types.py.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import fields
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin, get_type_hints

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, create_model

from late_interaction.array_types import Matrix
from late_interaction.errors import UsageError
from late_interaction.ready_rows import array_of
from query.options import Names, SearchOptions
from query.types import Explanation, Hit, Match, Query, QueryVectors, SearchResult
from vespa_app.settings.application_settings import MAX_HITS

__all__ = [
    "ByText",
    "DeletedAnswer",
    "DocumentAnswer",
    "DocumentBody",
    "DocumentsAnswer",
    "EncodeAnswer",
    "EncodeBody",
    "ExplainRequest",
    "IndexAnswer",
    "IndexesAnswer",
    "PassagesAnswer",
    "PassagesBody",
    "Problem",
    "RerankAnswer",
    "RerankRequest",
    "RowsBody",
    "ScoreBody",
    "ScoresAnswer",
    "SearchAnswer",
    "SearchRequest",
    "SelectAnswer",
    "SelectBody",
    "TaskAnswer",
    "TaskStarted",
    "ValueCount",
    "ValuesAnswer",
    "VectorsAnswer",
    "VectorsBody",
    "WrittenAnswer",
    "dense_of",
    "hit_json",
    "result_json",
    "rows_of",
]

_ABOUT = re.compile(r"(?<=\.) (\w+): ")  # names of fields in the docstring
OPTIONS = tuple(field.name for field in fields(SearchOptions))
_LAST_STAGE = ("rerank_with", "rerank_with_top")
Row: TypeAlias = list[float]


class StrictModel(BaseModel):
    """Base of bodies that reject unknown fields, values of another type and numbers that are not finite."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class RowsBody(StrictModel):
    """Token vectors `[q, d]` as base64 of little-endian numbers, row after row."""

    base64: str
    dtype: Literal["float16", "float32"] = "float32"
    shape: Annotated[list[int], Field(min_length=2, max_length=2)]


class VectorBody(RowsBody):
    """A vector of a dense model, `[dim]`, or one of each passage `[passages, dim]`."""

    shape: Annotated[list[int], Field(min_length=1, max_length=2)]


DenseVectors: TypeAlias = dict[str, VectorBody | Row | list[Row]]  # by name of the dense model


def dense_of(given: DenseVectors) -> dict[str, Matrix]:
    """Return the dense vectors of a body, by name of the model.

    Raises:
        UsageError: If bytes and shape do not fit.
    """
    arrays = {name: one.model_dump() if isinstance(one, VectorBody) else one for name, one in given.items()}
    return {name: array_of(one, f"the vector of dense model {name!r}") for name, one in arrays.items()}


def rows_of(given: RowsBody | list[Row]) -> Matrix:
    """Return rows `[q, d]` given as base64 or as lists.

    Raises:
        UsageError: If bytes and shape do not fit.
    """
    if isinstance(given, list):
        try:
            with np.errstate(over="ignore"):  # what float32 does not hold is refused as not finite
                return np.asarray(given, np.float32)
        except ValueError:
            raise UsageError("rows are lists of equally many numbers") from None
    try:
        data = base64.b64decode(given.base64, validate=True)
    except (binascii.Error, ValueError):
        raise UsageError("rows: not base64") from None
    kind = np.dtype(given.dtype).newbyteorder("<")
    q, d = given.shape
    if q < 0 or d < 0 or q * d * kind.itemsize != len(data):
        raise UsageError(f"rows: {len(data)} bytes are not {q} x {d} numbers of {given.dtype}")
    return np.frombuffer(data, kind).reshape(q, d).astype(np.float32)


def _option_fields(*without: str) -> dict[str, Any]:
    """Return the fields of SearchOptions for a model, with types, defaults and the descriptions of its docstring."""
    hints = get_type_hints(SearchOptions)
    _, *parts = _ABOUT.split(" ".join((SearchOptions.__doc__ or "").split()))
    about = {name: text[:1].upper() + text[1:] for name, text in zip(parts[::2], parts[1::2], strict=True)}
    return {
        field.name: (hints[field.name], Field(field.default, description=about.get(field.name)))
        for field in fields(SearchOptions)
        if field.name not in without
    }


class OptionsBody(StrictModel):
    """Base of bodies with options of a search."""

    def options(self, **chosen: Any) -> SearchOptions:
        """Return the options of the body, replaced by those in `chosen`.

        Raises:
            UsageError: If an option is out of range.
        """
        given = {name: getattr(self, name) for name in OPTIONS if name in type(self).model_fields}
        return SearchOptions(**{**given, **chosen})


class QueryBody(StrictModel):
    """A query that is encoded already.

    `rows`: its token vectors. `dense`: vectors by name of the dense models that a search uses. `text`: for candidates that
    match words.
    """

    rows: RowsBody | list[Row]
    dense: DenseVectors = {}
    text: str | None = None

    def ready(self) -> QueryVectors:
        """Return the query with its vectors.

        Raises:
            UsageError: If bytes and shape do not fit.
        """
        return QueryVectors(rows_of(self.rows), dense_of(self.dense), self.text)


class ByText(OptionsBody):
    """One query: a text, ready rows, or an encoded query."""

    query: str | QueryBody | None = None
    rows: RowsBody | list[Row] | None = None

    def one(self) -> Query:
        """Return the query.

        Raises:
            UsageError: If neither query nor rows is given, or both are.
        """
        if (self.query is None) == (self.rows is None):
            raise UsageError("give either query, a text, or rows")
        return _asked(self.query) if self.query is not None else rows_of(self.rows)  # type: ignore[arg-type]


def _asked(given: str | RowsBody | list[Row] | QueryBody) -> Query:
    """Return the query of a request body; UsageError if it is not valid."""
    if isinstance(given, QueryBody):
        return given.ready()
    return given if isinstance(given, str) else rows_of(given)


class SearchBody(ByText):
    queries: list[str | RowsBody | list[Row] | QueryBody] | None = None

    def all(self) -> list[Query]:
        """Return the queries.

        Raises:
            UsageError: If none or several of query, rows and queries are given.
        """
        if self.queries is None:
            return [self.one()]
        if self.query is not None or self.rows is not None:
            raise UsageError("give query, rows or queries, not several of them")
        return list(map(_asked, self.queries))


class RerankBody(ByText):
    """Texts or ids to rerank; without `k` all are returned."""

    texts: list[str] | None = None
    ids: list[str] | None = None
    k: int | None = None


class ExplainBody(ByText):
    id: str | None = None
    ids: list[str] | None = None


if TYPE_CHECKING:

    class SearchRequest(SearchBody):
        """A search request with its options."""

        pass

    class RerankRequest(RerankBody):
        """A reranking request with its options."""

        pass

    class ExplainRequest(ExplainBody):
        """An explanation request with its options."""

        pass

else:
    SearchRequest = create_model("SearchRequest", __base__=SearchBody, **_option_fields("rerank_with"))
    RerankRequest = create_model(
        "RerankRequest", __base__=RerankBody,
        **_option_fields(
            "ids", "candidates", "rerank", "probes", "offset", "weights", "fusion", "dense", "scored", "k", *_LAST_STAGE
        ),
    )  # fmt: skip
    ExplainRequest = create_model(
        "ExplainRequest", __base__=ExplainBody, **_option_fields("ids", "offset", "explain", *_LAST_STAGE)
    )


class EncodeBody(StrictModel):
    """Queries or documents to encode.

    `index`: the index whose model encodes them; default: the first.
    """

    queries: list[str] | None = None
    documents: list[str] | None = None
    format: Literal["json", "base64"] = "json"
    index: Names = None
    timeout: float | None = None


class SelectBody(StrictModel):
    """A filter whose documents are listed, `limit` of them at most."""

    where: dict[str, Any] | None = None
    limit: Annotated[int, Field(ge=1, le=MAX_HITS)] = MAX_HITS
    timeout: float | None = None


class VectorsBody(StrictModel):
    """Passages whose token vectors are requested.

    `ids`: ids of passages.
    """

    ids: list[str]
    timeout: float | None = None


class ScoreBody(ByText):
    """A query, and passages to score.

    `ids`: ids of passages.
    """

    ids: list[str]
    timeout: float | None = None


class PassagesBody(StrictModel):
    """Documents whose passages are requested.

    `ids`: ids of documents. `where`: a filter.
    """

    ids: list[str]
    where: dict[str, Any] | None = None
    timeout: float | None = None


class DocumentBody(StrictModel):
    """A document without its id, which is in the address.

    `vectors`: token vectors encoded elsewhere, of its passage or of each of them. `dense`: vectors encoded elsewhere, by name
    of the dense model.
    """

    title: str = ""
    text: str = ""
    metadata: dict[str, Any] = {}
    vectors: RowsBody | list[Row] | list[RowsBody] | None = None
    dense: DenseVectors = {}

    def matrices(self) -> tuple[Matrix, ...] | list[Matrix]:
        """Return the rows of each passage; empty if the model encodes them.

        Raises:
            UsageError: If bytes and shape do not fit.
        """
        if self.vectors is None:
            return ()
        if isinstance(self.vectors, list) and any(isinstance(one, RowsBody) for one in self.vectors):
            return [rows_of(one) for one in self.vectors if isinstance(one, RowsBody)]
        return [rows_of(self.vectors)]  # type: ignore[arg-type]  # not a list of bodies


class Problem(BaseModel):
    """A problem of RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    request_id: str


def _shown(hint: Any) -> Any:
    """Return the type of a field in JSON, where numbers that are not finite are null."""
    if hint in _ANSWERS:
        return _ANSWERS[hint]
    kind, parts = get_origin(hint), tuple(part for part in get_args(hint) if part is not Ellipsis)
    if hint is float:
        return float | None
    if kind is np.ndarray:
        return list[list[float | None]]
    if kind in (tuple, list):
        return list[_shown(parts[0])]  # type: ignore[misc]
    if kind in (Mapping, dict):
        return dict[str, _shown(parts[1])]  # type: ignore[misc]
    return Union[tuple(map(_shown, parts))] if kind in (Union, UnionType) else hint  # noqa: UP007  of a computed tuple


_ANSWERS: dict[Any, type[BaseModel]] = {}


def _answer(kind: type, name: str, without: tuple[str, ...] = (), optional: tuple[str, ...] = ()) -> type[BaseModel]:
    """Create a model of the dataclass `kind`, whose `optional` fields may be absent."""
    hints = get_type_hints(kind)
    chosen = [field.name for field in fields(kind) if field.name not in without]
    types = {field: _shown(hints[field]) for field in chosen}
    found: dict[str, Any] = {
        field: (type_ | None, None) if field in optional else (type_, ...) for field, type_ in types.items()
    }
    _ANSWERS[kind] = create_model(name, **found)
    return _ANSWERS[kind]


_answer(Match, "MatchAnswer")
_answer(Explanation, "ExplanationAnswer")
HitAnswer = _answer(Hit, "HitAnswer", without=("vectors",), optional=("rows", "explanation"))
ResultAnswer = _answer(SearchResult, "ResultAnswer")
SearchAnswer = create_model("SearchAnswer", results=(list[ResultAnswer], ...))  # type: ignore[valid-type]
RerankAnswer = create_model("RerankAnswer", hits=(list[HitAnswer], ...))  # type: ignore[valid-type]


def result_json(result: SearchResult) -> dict[str, object]:
    """Return a result in the form of ResultAnswer; numbers that are not finite are written as null later."""
    return {**result.to_json(), "hits": list(map(hit_json, result.hits))}


def hit_json(hit: Hit) -> dict[str, object]:
    """Return a hit with its whole explanation: every query word with every word of the passage.

    The similarities are an array, whose numbers are written in half as many digits as those of a list.
    """
    data = hit.to_json()
    if (why := hit.explanation) is not None:
        data["explanation"] = {**why.to_json(), "words": why.words, "similarities": np.ascontiguousarray(why.similarities)}
    return data


class EncodeAnswer(BaseModel):
    """Token vectors.

    `vectors`: rows of each text, in order.
    """

    vectors: list[list[Row] | RowsBody]


class IndexAnswer(BaseModel):
    """An index that is served.

    `fields`: metadata fields and their types. `error`: why the index cannot be read at the moment. Further members depend on
    the backend.
    """

    model_config = ConfigDict(extra="allow")

    name: str
    backend: Literal["local", "vespa"]
    candidates: list[str]
    fields: dict[str, str]
    model: str
    dim: int


class IndexesAnswer(BaseModel):
    """The indexes that the caller may see."""

    indexes: list[IndexAnswer]


class ValueCount(BaseModel):
    """A value of a metadata field.

    `count`: number of passages that have the value.
    """

    value: str | int | float | bool
    count: int


class ValuesAnswer(BaseModel):
    """The values of a metadata field."""

    values: list[ValueCount]


class SelectAnswer(BaseModel):
    """Ids of the documents that a filter selects.

    `coverage`: share of the index that was searched. `degraded`: why not all of it.
    """

    ids: list[str]
    coverage: float
    degraded: list[str]


class PassageAnswer(BaseModel):
    id: str
    text: str


class DocumentAnswer(BaseModel):
    """A stored document with its passages."""

    id: str
    title: str
    text: str
    metadata: dict[str, Any]
    passages: list[PassageAnswer]


class StoredPassageAnswer(BaseModel):
    id: str
    document_id: str
    title: str
    text: str
    metadata: dict[str, Any]


class PartialAnswer(BaseModel):
    """An answer that may not cover the whole index.

    `coverage`: share of the index that was searched. `degraded`: why not all of it.
    """

    coverage: float
    degraded: list[str]


class PassagesAnswer(PartialAnswer):
    """Stored passages of documents."""

    passages: list[StoredPassageAnswer]


class ScoresAnswer(PartialAnswer):
    """Scores by passage id; null for a passage without vectors."""

    scores: dict[str, float | None]


class VectorsAnswer(PartialAnswer):
    """Stored token vectors by passage id."""

    vectors: dict[str, RowsBody]


class DocumentsAnswer(BaseModel):
    """Stored documents.

    `coverage`: share of the index that was searched. `degraded`: why not all of it.
    """

    documents: list[DocumentAnswer]
    coverage: float
    degraded: list[str]


class WrittenAnswer(BaseModel):
    """Id of the document that was written."""

    id: str


class DeletedAnswer(BaseModel):
    """Ids of the documents that were deleted."""

    deleted: list[str]


class TaskStarted(BaseModel):
    """Id of the task that was started."""

    task: str


class FailedDocument(BaseModel):
    """A document that was not written.

    `status`: the HTTP status that a single write of it would have.
    """

    id: str
    status: int
    detail: str


class TaskAnswer(BaseModel):
    """State of a task.

    `state`: running, done, or failed, in which case `detail` has the reason. `failed`: at most 100 documents; `more_failed`:
    the number of further ones.
    """

    task: str
    state: Literal["running", "done", "failed"]
    documents: int
    stored: int
    failed: list[FailedDocument]
    more_failed: int
    detail: str = ""
