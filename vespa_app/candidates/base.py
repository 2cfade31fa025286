"""The interface of a candidate strategy: schema fields, rank profiles, what a document carries, what a query requests.

Rank profiles inherit `late_interaction` (schema.py), which declares query(qt) and the function `max_sim`. The relevance of
every hit is its MaxSim (in `hybrid` the fused score) as long as a query requests no more hits than it reranks. Match
features explain it: `firstPhase` is the score of the first phase, `words` its BM25, `dense_similarity` that of a dense
model, `max_sim` its MaxSim if that is not the score. Every profile has a variant `NAME_explained`, whose match feature
`best_similarities` is what each query row found in the passage.
"""

from __future__ import annotations

import abc
import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from late_interaction.array_types import I8, I32, Matrix, TokenIds, Vector
from late_interaction.errors import SettingsError
from late_interaction.lookup import Lookup
from late_interaction.one_vector.base import LARGEST_CELL, TINY, OneVector
from late_interaction.thresholds import Thresholds
from vespa_app.codecs.bfloat16 import upper_halves
from vespa_app.settings import AppSettings
from vespa_app.settings.application_settings import DEFAULT_WEIGHTS

__all__ = [
    "BASE_PROFILE",
    "BEST",
    "CANDIDATE_SCORE",
    "EXPLAINED",
    "MAXSIM",
    "Centroids",
    "DocumentContext",
    "Parameter",
    "QueryParts",
    "Strategy",
    "StrategyRequest",
    "codebook_of",
    "declared_fields",
    "drop_limit",
    "explained_profile",
    "first_phase",
    "float_cells",
    "hnsw_lines",
    "int8_cells",
    "rerank_parameters",
    "second_phase",
    "tensor_hex",
    "vector_hex",
]

Parameter: TypeAlias = str | int | float | bool | Mapping[str, object]

BASE_PROFILE = "late_interaction"
MAXSIM = "max_sim"
BEST = "best_similarities"  # function and match feature: tensor(qt{})
EXPLAINED = "_explained"  # suffix of the profiles that have it
CANDIDATE_SCORE = "firstPhase"  # match feature: the score of the first phase


class Centroids(Protocol):
    """The part of late_interaction.codebook.Codebook that strategies use."""

    @property
    def size(self) -> int:
        """Return the number of centroids."""
        ...

    @property
    def lookup(self) -> Lookup:
        """Return a lookup of the centroids nearest to rows."""

    def assign_near(self, vectors: Matrix, token_ids: TokenIds | None = None) -> NDArray[np.integer]:
        """Return a near centroid of each row: `[t, d]` -> `[t]`. token_ids: as in Codebook."""
        ...


@dataclass(frozen=True, slots=True)
class DocumentContext:
    """What `document_fields` may need besides the vectors.

    Attributes:
        codebook: the bundle's, if it has one.
        thresholds: the bundle's, if it has some.
        settings: settings of the application.
        codes: centroid of each row, if known.
        token_ids: vocabulary id of each row, if known.
        dense: vector of each dense model by name.
    """

    codebook: Centroids | None = None
    thresholds: Thresholds | None = None
    settings: AppSettings | None = None
    codes: NDArray[np.integer] | None = None
    token_ids: TokenIds | None = None
    dense: Mapping[str, Vector] = field(default_factory=dict)
    one_vector: OneVector | None = None


@dataclass(frozen=True)
class StrategyRequest:
    """One query.

    Attributes:
        rows: `[q, d]` float32.
        text: the query's text, if there is one.
        rerank: most candidates that get a MaxSim score, in the whole cluster.
        settings: settings of the application.
        codebook: the bundle's, for strategies that need it.
        thresholds: the bundle's, for strategies that need them.
        weights: weights of fused scores by name, each above 0.
        fusion: how scores are fused.
        model: name of the dense model that is used.
        dense: its vector of the query.
    """

    rows: Matrix
    text: str | None
    rerank: int
    settings: AppSettings
    codebook: Centroids | None = None
    thresholds: Thresholds | None = None
    one_vector: OneVector | None = None
    weights: Mapping[str, float] = field(default_factory=lambda: DEFAULT_WEIGHTS)
    fusion: str = "rrf"
    model: str = ""
    dense: Vector | None = None

    @functools.cached_property
    def lists(self) -> tuple[I32, Matrix, Matrix]:
        """Return ids, similarities and gains `[q, probes]` of the centroids near each row, as in `Lookup.lists`.

        They are computed once for all parts of a query.

        Raises:
            SettingsError: if there is no codebook.
        """
        codebook = codebook_of(self.codebook)
        return codebook.lookup.lists(self.rows, min(self.settings.probes, codebook.size))

    @property
    def targets(self) -> int:
        """Return how many candidates HNSW and BM25 must find: never fewer than are reranked."""
        return max(self.rerank, self.settings.target_hits)


@dataclass(frozen=True)
class QueryParts:
    """The parts of a query that a strategy decides.

    Attributes:
        yql_where: what to match, in parentheses.
        parameters: of the query request.
        profile: the rank profile.
    """

    yql_where: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    profile: str = BASE_PROFILE


class Strategy(abc.ABC):
    """How candidates are found. The base class is a strategy without its own fields; others override what differs.

    Attributes:
        name: its name.
        about: purpose of its rank profiles, in one line of the package's README.
        own_fields: names of the schema fields that belong to it with any settings; no metadata field may have them.
        needs_codebook: whether it needs the bundle's codebook.
        of_vectors: its documents carry something that the client makes from their token vectors.
        of_chunks: it finds documents of layout `chunks`.
        phases: phases of its rank profile whose hits a limit may drop.
    """

    name: str
    about: str
    own_fields: tuple[str, ...] = ()
    needs_codebook: bool = False
    of_vectors: bool = True
    of_chunks: bool = True
    phases: tuple[str, ...] = ("first", "second")

    def fields(self, settings: AppSettings) -> str:
        """Return the schema fields of this strategy, indented for the document block; may be empty."""
        return ""

    def vectors_lines(self, settings: AppSettings) -> str:
        """Return the lines of this strategy in the field `vectors`; may be empty."""
        return ""

    @abc.abstractmethod
    def profile(self, settings: AppSettings) -> str:
        """Return the rank profiles of this strategy: its own name, and others that begin with it."""

    def explained(self, settings: AppSettings) -> str:
        """Return the variants of the profiles that explain the scores."""
        return explained_profile(self.name)

    def faults(self, settings: AppSettings) -> Iterator[str]:
        """Yield what is missing in settings that have it among their candidates."""
        yield from ()

    def document_fields(self, vectors: Matrix, context: DocumentContext) -> dict[str, object]:
        """Return what the feeder adds to each document. vectors: `[t, d]`."""
        return {}

    @abc.abstractmethod
    def query(self, request: StrategyRequest) -> QueryParts:
        """Return the parts of a query."""


def declared_fields(strategy: Strategy, settings: AppSettings) -> frozenset[str]:
    """Return the names of the schema fields that a strategy needs with these settings, its own or another's."""
    return frozenset(re.findall(r"^ *field (\w+) ", strategy.fields(settings), re.MULTILINE))


def explained_profile(name: str, more_features: str = "") -> str:
    """Return the variant of a profile that reports what each query row found."""
    return f"""\
    rank-profile {name}{EXPLAINED} inherits {name} {{
        match-features: {CANDIDATE_SCORE} {BEST}{more_features}
    }}
"""


def codebook_of(codebook: Centroids | None) -> Centroids:
    """Return the codebook.

    Raises:
        SettingsError: if there is none.
    """
    if codebook is None:
        raise SettingsError(
            "candidates centroid need a codebook; export the bundle with --sample, then run `colbert-vespa app`"
        )
    return codebook


def first_phase(settings: AppSettings, name: str, expression: str) -> str:
    """Return the first phase of candidates `name`."""
    kept = f"            total-keep-rank-count: {settings.keep_rank_count}\n" if settings.keep_rank_count else ""
    return f"""\
        first-phase {{
{kept}{drop_limit(settings, name, "first")}            expression: {expression}
        }}
"""


def drop_limit(settings: AppSettings, name: str, phase: str) -> str:
    """Return the line of a phase that drops hits with too low a score; may be empty."""
    limit = settings.drop_limits.get(name, {}).get(phase)
    return "" if limit is None else f"            rank-score-drop-limit: {float(limit)!r}\n"


def second_phase(settings: AppSettings, name: str) -> str:
    """Return the second phase of candidates `name`, which reranks. Each query overrides the count."""
    return f"""\
        second-phase {{
{drop_limit(settings, name, "second")}            total-rerank-count: {settings.rerank}
            expression: {MAXSIM}
        }}
"""


def rerank_parameters(request: StrategyRequest) -> dict[str, Parameter]:
    """Return query(qt) of a query with rows, and how many candidates of the whole cluster get a MaxSim score."""
    rows: dict[str, Parameter] = {"input.query(qt)": tensor_hex(request.rows)} if len(request.rows) else {}
    return rows | {"ranking.secondPhase.totalRerankCount": request.rerank}


def tensor_hex(rows: Matrix) -> dict[str, object]:
    """Return `[q, d]` as a value of tensor<float>(qt{}, x[d]): labels are row numbers, cells big-endian hex."""
    text, width = vector_hex(rows), 8 * rows.shape[1]
    return {str(number): text[number * width : (number + 1) * width] for number in range(len(rows))}


def vector_hex(vector: Matrix) -> str:
    """Return `[d]` as the cells of tensor<float>(x[d]): big-endian hex."""
    return np.asarray(vector, np.float32).astype(">f4").tobytes().hex()


def float_cells(vector: Matrix, cells: str) -> str:
    """Return `[d]` as the cells of a tensor of float or bfloat16, in hex."""
    return upper_halves(vector).astype(">u2").tobytes().hex() if cells == "bfloat16" else vector_hex(vector)


def int8_cells(vector: Vector) -> tuple[I8, float]:
    """Return `[d]` as int8 cells, the largest of them 127, and the number that one step stands for."""
    largest = max(TINY, float(np.abs(vector).max()))
    return np.rint(vector * (LARGEST_CELL / largest)).astype(np.int8), largest / LARGEST_CELL


def hnsw_lines(links: int, explore: int, distance: str) -> str:
    """Return the lines of a field's HNSW graph, indented for it."""
    return f"""\
            attribute {{
                distance-metric: {distance}
            }}
            index {{
                hnsw {{
                    max-links-per-node: {links}
                    neighbors-to-explore-at-insert: {explore}
                }}
            }}
"""
