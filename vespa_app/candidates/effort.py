"""The effort and codec needed for a recall goal, from measurements.

What candidates find is measured on a sample of the user's documents (`colbert-vespa candidates`), or on 60,000 passages of
ours (performance/notes.md): `bm25` and `exhaustive` on a node (benchmarks/vespa.py), `centroid` counted with a codebook made
for that many passages (benchmarks/centroids.py), the encodings of `pooled` in a graph like Vespa's (benchmarks/candidates.py).
No effort finds what the codec loses: MaxSim over its vectors finds that times what the codec finds by `exhaustive`, within .005
of what a node found, or below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from late_interaction.bundle import MEASURED_K, Bundle
from late_interaction.errors import SettingsError
from late_interaction.one_vector import MEAN, chosen_encoding
from vespa_app.codecs import CODECS
from vespa_app.settings import AppSettings
from vespa_app.settings.application_settings import parts_of

__all__ = ["CODEC_RECALL", "EFFORTS", "KnownEfforts", "MeasuredEffort"]

_PROBES, _RERANK = AppSettings.probes, AppSettings.rerank
_BITS = 4  # residual bits in all measurements


@dataclass(frozen=True)
class MeasuredEffort:
    """A measured effort.

    Attributes:
        recall: share of the exact top 10 among the candidates.
        probes: the setting that found it; unchanged for a strategy that does not use it.
        rerank: the setting that found it.
    """

    recall: float
    probes: int = _PROBES
    rerank: int = _RERANK


CODEC_RECALL: Mapping[str, float] = {"float32": 1.0, "bfloat16": 0.998, "residual": 0.969, "binary": 0.761}
# by strategy or encoding of pooled, least effort first. hybrid is ordered by another score, so its recall of MaxSim's order
# is undefined
EFFORTS: Mapping[str, tuple[MeasuredEffort, ...]] = {
    "centroid": (
        MeasuredEffort(0.961, 16, 200),
        MeasuredEffort(0.974, 32, 200),
        MeasuredEffort(0.982, 16, 500),
        MeasuredEffort(0.992, 32, 500),
        MeasuredEffort(0.998, 32, 1000),
        MeasuredEffort(0.999, 64, 2000),
    ),
    "mean": (
        MeasuredEffort(0.927, rerank=200),
        MeasuredEffort(0.964, rerank=500),
        MeasuredEffort(0.983, rerank=1000),
        MeasuredEffort(0.992, rerank=2000),
    ),
    "lemur": (  # 512 dimensions
        MeasuredEffort(0.953, rerank=200),
        MeasuredEffort(0.980, rerank=500),
        MeasuredEffort(0.993, rerank=1000),
        MeasuredEffort(0.998, rerank=2000),
    ),
    "bm25": (MeasuredEffort(0.860, rerank=500),),
    "exhaustive": (MeasuredEffort(1.0),),
    "token": (MeasuredEffort(0.964, rerank=200),),  # among 20,000 passages, codec binary
}
_ONLY_CODEC = {"token": "binary"}  # strategies that were measured with one alone


@dataclass(frozen=True)
class KnownEfforts:
    """What was measured of candidates `strategy`.

    Attributes:
        strategy: its name.
        efforts: their recall, as MaxSim over float32 vectors finds it, least effort first.
        own: whether they were measured on a sample of the user's documents, rather than on ours.
    """

    strategy: str
    efforts: tuple[MeasuredEffort, ...] = ()
    own: bool = False

    @classmethod
    def of(cls, strategy: str, bundle: Bundle | None = None) -> KnownEfforts:
        """Return the bundle's own measurement of the strategy, if it has one of the exact top 10, or else ours.

        Ours of `pooled` is that of the bundle's encoding.
        """
        recorded = bundle.manifest.candidates if bundle is not None else None
        if recorded is not None and recorded.strategy == strategy and recorded.k == MEASURED_K:
            return cls(strategy, (MeasuredEffort(recorded.recall, recorded.probes or _PROBES, recorded.rerank),), own=True)
        encoding = chosen_encoding(bundle) if bundle is not None else ""
        return cls(strategy, EFFORTS.get((encoding or MEAN) if strategy == "pooled" else strategy, ()))

    def with_codec(self, codec: str, bits: int = _BITS) -> tuple[MeasuredEffort, ...]:
        """Return the efforts with the recall of MaxSim over the codec's vectors. bits: of codec residual."""
        if (codec == "residual" and bits != _BITS) or _ONLY_CODEC.get(self.strategy, codec) != codec:
            return ()
        share = CODEC_RECALL.get(codec, 0)
        if self.own:  # a sample's recall is less certain than what bfloat16 loses
            share = min(1, share / CODEC_RECALL[AppSettings.codec])
        return tuple(replace(effort, recall=round(effort.recall * share, 4)) for effort in self.efforts if share)

    def effort_for(self, recall: float, codec: str, bits: int = _BITS) -> MeasuredEffort:
        """Return the least effort that reached this recall. bits: of codec residual.

        Raises:
            SettingsError: if none did, or the strategy and codec were not measured; the message names the best that was.
        """
        _check(recall)
        if "dense" in parts_of(self.strategy):
            raise SettingsError(
                f"recall {recall:g}: what candidates {self.strategy} find depends on the dense model: leave --recall out; "
                "`evaluate --recall` measures it on the deployed index, and names rerank"
            )
        measured = self.with_codec(codec, bits)
        for effort in measured:
            if recall <= effort.recall:
                return effort
        if not measured:
            what = f"{codec} of {bits} bits" if codec == "residual" and bits != _BITS else codec
            raise SettingsError(
                f"recall {recall:g}: candidates {self.strategy} with codec {what} were not measured; {self._best(recall)}; "
                "omit --recall, and set probes and rerank"
            )
        found = max(effort.recall for effort in measured)
        raise SettingsError(
            f"recall {recall:g} exceeds what was measured for candidates {self.strategy} with codec {codec} ({found:g}); "
            f"{self._best(recall)}"
        )

    def codec_for(self, recall: float, dim: int, bits: int | None) -> str:
        """Return the codec of the least memory that reaches the goal. bits: of the bundle's codebook; None if it has none.

        Raises:
            SettingsError: if none does.
        """
        _check(recall)
        able = (name for name, codec in CODECS.items() if not (codec.needs_codebook and bits is None))
        possible = [name for name in able if dim % CODECS[name].dims_per_cell == 0]
        for name in sorted(possible, key=lambda name: CODECS[name].bytes_per_token(dim, bits or _BITS)):
            if any(recall <= effort.recall for effort in self.with_codec(name, bits or _BITS)):
                return name
        raise SettingsError(f"recall {recall:g} was reached by no codec with candidates {self.strategy}; {self._best(recall)}")

    def _best(self, goal: float) -> str:
        """Return the best measurement: of this strategy or, if it was not measured, of all that keep an index."""
        known = [self] if self.efforts else [KnownEfforts(name, EFFORTS[name]) for name in EFFORTS if name != "exhaustive"]
        pairs = [(of.with_codec(codec)[-1].recall, codec, of) for codec in CODEC_RECALL for of in known if of.with_codec(codec)]
        found, codec, best = max(pairs, key=lambda pair: pair[0])
        text = f"the best measured is {found:g}, of {best.strategy} with codec {codec}"
        if self.own:
            again = f"; measure again with `candidates --goal recall@{MEASURED_K}={goal:g}`" if goal > found else ""
            return f"{text}, on the sample of this bundle{again}"
        return text if best.strategy == "exhaustive" else f"{text}; candidates exhaustive find all that a codec keeps"


def _check(recall: float) -> None:
    if not 0 < recall <= 1:
        raise SettingsError(f"recall must be between 0 and 1, got {recall}")
