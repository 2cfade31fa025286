"""The effort and codec needed for a recall goal, from measurements (performance/notes.md, benchmarks/vespa.py).

Each pair of codec and strategy has its own ceiling: no effort finds what the codec has lost. `centroid` assumes a codebook
made by `export --documents` for that many passages, counted from float32 vectors (benchmarks/centroids.py). bfloat16
reaches .002 less; residual and binary reach that times what the codec finds by `exhaustive`: within .005 of what a node
found, or below.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from late_interaction.errors import SettingsError
from vespa_app.codecs import CODECS
from vespa_app.settings import AppSettings
from vespa_app.settings.application_settings import parts_of

__all__ = ["EFFORTS", "MeasuredEffort", "codec_for", "effort_for"]

_PROBES, _RERANK = AppSettings.probes, AppSettings.rerank
_BITS = 4  # residual bits in all measurements


@dataclass(frozen=True)
class MeasuredEffort:
    """A measured effort.

    Attributes:
        recall: share of the exact top 10 that was found, among 60,000 passages.
        probes: the setting that found it; unchanged for a strategy that does not use it.
        rerank: the setting that found it.
    """

    recall: float
    probes: int = _PROBES
    rerank: int = _RERANK


# by codec and strategy, least effort first. hybrid is ordered by another score, so its recall of MaxSim's order is undefined
EFFORTS: Mapping[tuple[str, str], tuple[MeasuredEffort, ...]] = {
    ("float32", "centroid"): (
        MeasuredEffort(0.961, 16, 200),
        MeasuredEffort(0.974, 32, 200),
        MeasuredEffort(0.982, 16, 500),
        MeasuredEffort(0.992, 32, 500),
        MeasuredEffort(0.998, 32, 1000),
        MeasuredEffort(0.999, 64, 2000),
    ),
    ("float32", "pooled"): (MeasuredEffort(0.966, rerank=500), MeasuredEffort(0.993, rerank=2000)),
    ("float32", "bm25"): (MeasuredEffort(0.860, rerank=500),),
    ("float32", "exhaustive"): (MeasuredEffort(1.0),),
    ("bfloat16", "centroid"): (
        MeasuredEffort(0.959, 16, 200),
        MeasuredEffort(0.972, 32, 200),
        MeasuredEffort(0.980, 16, 500),
        MeasuredEffort(0.990, 32, 500),
        MeasuredEffort(0.996, 32, 1000),
        MeasuredEffort(0.997, 64, 2000),
    ),
    ("bfloat16", "pooled"): (MeasuredEffort(0.965, rerank=500), MeasuredEffort(0.992, rerank=2000)),
    ("bfloat16", "bm25"): (MeasuredEffort(0.859, rerank=500),),
    ("bfloat16", "exhaustive"): (MeasuredEffort(0.998),),
    ("residual", "centroid"): (
        MeasuredEffort(0.932, 16, 200),
        MeasuredEffort(0.944, 32, 200),
        MeasuredEffort(0.952, 16, 500),
        MeasuredEffort(0.962, 32, 500),
        MeasuredEffort(0.968, 32, 1000),
    ),
    ("residual", "pooled"): (MeasuredEffort(0.940, rerank=500),),
    ("residual", "bm25"): (MeasuredEffort(0.830, rerank=500),),
    ("residual", "exhaustive"): (MeasuredEffort(0.969),),
    ("binary", "centroid"): (
        MeasuredEffort(0.731, 16, 200),
        MeasuredEffort(0.741, 32, 200),
        MeasuredEffort(0.747, 16, 500),
        MeasuredEffort(0.755, 32, 500),
        MeasuredEffort(0.759, 32, 1000),
        MeasuredEffort(0.760, 64, 2000),
    ),
    ("binary", "pooled"): (MeasuredEffort(0.751, rerank=500), MeasuredEffort(0.757, rerank=2000)),
    ("binary", "bm25"): (MeasuredEffort(0.719, rerank=500),),
    ("binary", "exhaustive"): (MeasuredEffort(0.761),),
    ("binary", "token"): (MeasuredEffort(0.734, rerank=200),),  # among 20,000 passages
}


def effort_for(recall: float, codec: str, strategy: str, bits: int = _BITS) -> MeasuredEffort:
    """Return the least effort that reached this recall. bits: of codec residual.

    Raises:
        SettingsError: if none did, or the pair was not measured; the message names the best that was.
    """
    _check(recall)
    if "dense" in parts_of(strategy):
        raise SettingsError(
            f"recall {recall:g}: what candidates {strategy} find depends on the dense model: leave --recall out; "
            "`evaluate --recall` measures it on the deployed index, and names rerank"
        )
    measured = _measured(codec, strategy, bits)
    for effort in measured:
        if recall <= effort.recall:
            return effort
    if not measured:
        what = f"{codec} of {bits} bits" if codec == "residual" and bits != _BITS else codec
        raise SettingsError(
            f"recall {recall:g}: candidates {strategy} with codec {what} were not measured; {_best(strategy)}; omit "
            f"--recall, and set probes and rerank"
        )
    found = max(effort.recall for effort in measured)
    raise SettingsError(
        f"recall {recall:g} exceeds what was measured for candidates {strategy} with codec {codec} ({found:g}); "
        f"{_best(strategy)}"
    )


def codec_for(recall: float, strategy: str, dim: int, bits: int | None) -> str:
    """Return the codec of the least memory that reaches the goal. bits: of the bundle's codebook; None if it has none.

    Raises:
        SettingsError: if none does.
    """
    _check(recall)
    able = (name for name, codec in CODECS.items() if not (codec.needs_codebook and bits is None))
    possible = [name for name in able if dim % CODECS[name].dims_per_cell == 0]
    for name in sorted(possible, key=lambda name: CODECS[name].bytes_per_token(dim, bits or _BITS)):
        if any(recall <= effort.recall for effort in _measured(name, strategy, bits or _BITS)):
            return name
    raise SettingsError(f"recall {recall:g} was reached by no codec with candidates {strategy}; {_best(strategy)}")


def _measured(codec: str, strategy: str, bits: int) -> tuple[MeasuredEffort, ...]:
    return () if codec == "residual" and bits != _BITS else EFFORTS.get((codec, strategy), ())


def _check(recall: float) -> None:
    if not 0 < recall <= 1:
        raise SettingsError(f"recall must be between 0 and 1, got {recall}")


def _best(strategy: str) -> str:
    """Return the best measurement: of this strategy or, if it was not measured, of all that keep an index."""
    pairs = [pair for pair in EFFORTS if pair[1] == strategy] or [pair for pair in EFFORTS if pair[1] != "exhaustive"]
    effort, codec, name = max(((EFFORTS[pair][-1], *pair) for pair in pairs), key=lambda found: found[0].recall)
    text = f"the best measured is {effort.recall:g}, of {name} with codec {codec}"
    return text if name == "exhaustive" else f"{text}; candidates exhaustive find all that a codec keeps"
