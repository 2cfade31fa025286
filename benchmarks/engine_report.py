"""Figures, table and plot of `benchmarks.engines`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from colbert_vespa.evaluation.metrics import percentile
from late_interaction.metrics import overlap_at_k

__all__ = ["fastest", "figures", "plot", "table"]

PERCENTS = (95, 98)
TARGETS = {
    f"{name}_at_{percent}": (key, percent / 100) for percent in PERCENTS for name, key in (("ms", "p50_ms"), ("cpu", "cpu_ms"))
}  # column: what is compared, at which recall@10
COLUMNS = (
    "recall_at_10", "p50_ms", "p95_ms", "cpu_ms", *TARGETS, "qps", "build_s", "build_cpu_s", "bytes_per_token",
    "build_rss_mb", "search_rss_mb",
)  # fmt: skip
EXTRA = ("open_s", "first_answer_s", "batch_qps", "engine_bytes_per_token", "mapped_mb", "touched_mb")
BARS = {
    "p95_ms": "p95, ms", "qps": "queries/s", "build_s": "build, s", "bytes_per_token": "bytes per token vector",
    "peak_rss_mb": "peak RSS, MB",
}  # fmt: skip


def figures(built: Mapping[str, Any], searched: Mapping[str, Any], truth: list[list[int]] | None) -> dict[str, Any]:
    """truth: the exact ten best of each query, None for no recall. `search_cores`: CPU seconds per second of the searches.
    `cpu_ms`: processor time of a query, the mean of all threads together, which other work on the machine hardly changes.
    `build_cpu_s` likewise, of the whole process.
    `ms_at_95`, `cpu_at_95` and so on: p50 and `cpu_ms` of the fastest effort with this recall, the defaults among them; None
    where none has it."""
    ms = searched["ms"]
    found = _measured(searched, truth)
    efforts = [{"effort": effort["effort"], **_measured(effort, truth)} for effort in searched.get("efforts", [])]
    found |= {key: fastest([found, *efforts], *target) for key, target in TARGETS.items()}
    found |= {"qps": round(1000 * len(ms) / sum(ms), 1), "build_s": round(built["seconds"], 1)}
    found |= {"build_cpu_s": round(built["cpu_s"], 1)} if "cpu_s" in built else {}
    for key in ("bytes_per_token", "bytes_per_token_used"):
        found |= {key: round(searched[key], 1)} if key in searched else {}
    rss = {"build_rss_mb": round(built["peak_rss_mb"]), "search_rss_mb": round(searched["peak_rss_mb"])}
    found |= {"peak_rss_mb": max(rss.values()), **rss, "search_cores": round(searched["cpu_s"] / (sum(ms) / 1000), 2)}
    found |= {key: _short(searched[key]) for key in EXTRA if key in searched}
    found |= {key: searched[key] for key in ("one_pass", "efforts_left_out") if key in searched}
    return {**found, "efforts": efforts}


def fastest(efforts: Sequence[Mapping[str, Any]], key: str, recall: float) -> float | None:
    """The smallest `key` of those that have at least this recall; None where none has."""
    return min((effort[key] for effort in efforts if effort.get("recall_at_10", 0) >= recall), default=None)


def _measured(searched: Mapping[str, Any], truth: list[list[int]] | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if truth is not None:
        pairs = zip(searched["ids"], truth, strict=True)
        found["recall_at_10"] = round(float(np.mean([overlap_at_k(_texts(a), _texts(b), 10) for a, b in pairs])), 4)
    found |= {f"p{n}_ms": round(percentile(searched["ms"], n / 100), 2) for n in (50, 95)}
    return found | {"cpu_ms": round(1000 * searched["cpu_s"] / len(searched["ms"]), 2)}


def _texts(ids: list[int]) -> list[str]:
    return [str(id_) for id_ in ids]


def _short(value: Any) -> Any:
    return {key: round(part, 1) for key, part in value.items()} if isinstance(value, dict) else round(value, 3)


def table(result: Mapping[str, Any]) -> str:
    lines = [f"{result['collection']}: {result['passages']} passages, {result['token_vectors']} token vectors", ""]
    lines += ["| engine | " + " | ".join(COLUMNS) + " |", "|---" * (len(COLUMNS) + 1) + "|"]
    for name, row in result["engines"].items():
        lines.append(_line(name, row, COLUMNS))
    lines += [
        f"| {name} | not measured: {reason} |" + " |" * (len(COLUMNS) - 1) for name, reason in result["unavailable"].items()
    ]
    lines += ["", *_equal_recall(result["engines"]), "", *_ladder(result["engines"]), ""]
    for name, row in result["engines"].items():
        said = []
        if "open_s" in row:
            said.append(f"opens in {1000 * row['open_s']:.0f} ms with nothing of it in memory")
        if "first_answer_s" in row:
            said.append(f"first answer after {row['first_answer_s']:.2f} s")
        if "batch_qps" in row:
            one, two = row["batch_qps"]["1"], row["batch_qps"]["2"]
            said.append(f"batches {one:.0f}/s on one thread, {two:.0f}/s on two ({two / one:.2f} times)")
        if "touched_mb" in row:
            said.append(f"{row['touched_mb']:.0f} MB of the index's files touched")
        if "bytes_per_token_used" in row:
            said.append(f"{row['bytes_per_token_used']} bytes per token once it was opened")
        if "efforts_left_out" in row:
            said.append(f"{row['efforts_left_out']} of its efforts left out, as the others took too long")
        if "one_pass" in row:
            said.append("all queries in one pass, ms is the share of each")
        if said:
            lines.append(f"{name}: " + ", ".join(said))
    return "\n".join(lines)


def _equal_recall(engines: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A table of each engine's effort of least processor time with each recall; where none has it, the one with the most."""
    columns = ("recall_at_10", "cpu_ms", "p50_ms")
    lines = ["| engine | recall asked | effort | " + " | ".join(columns) + " |", "|---" * (len(columns) + 3) + "|"]
    for name, row in engines.items():
        efforts = [effort for effort in _with_defaults(row) if "recall_at_10" in effort]
        for percent in PERCENTS if efforts else ():
            enough = [effort for effort in efforts if effort["recall_at_10"] >= percent / 100]
            most = max(float(effort["recall_at_10"]) for effort in efforts)
            chosen = enough or [effort for effort in efforts if effort["recall_at_10"] == most]
            best = min(chosen, key=lambda effort: float(effort["cpu_ms"]))
            asked = f"{percent / 100}" if enough else f"{percent / 100}, not reached"
            lines.append(_line(f"{name} | {asked} | {_settings(best)}", best, columns))
    return lines


def _with_defaults(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [{**row, "effort": {}}, *row["efforts"]]


def _settings(effort: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in effort["effort"].items()) or "defaults"


def _ladder(engines: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A table of the efforts, by engine, the fastest first."""
    columns = ("recall_at_10", "p50_ms", "p95_ms", "cpu_ms")
    lines = ["| engine | effort | " + " | ".join(columns) + " |", "|---" * (len(columns) + 2) + "|"]
    for name, row in engines.items():
        if not row["efforts"]:
            continue
        for effort in sorted(_with_defaults(row), key=lambda effort: float(effort["p50_ms"])):
            lines.append(_line(f"{name} | {_settings(effort)}", effort, columns))
    return lines if len(lines) > 2 else []


def _line(name: str, row: Mapping[str, Any], columns: Sequence[str]) -> str:
    cells = ["-" if row.get(column) is None else str(row[column]) for column in columns]
    return f"| {name} | " + " | ".join(cells) + " |"


def plot(found: Mapping[str, Mapping[str, Any]], file: Path) -> bool:
    """Whether there is one now: it needs matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no plot: matplotlib is not installed", file=sys.stderr)
        return False
    figure = Figure(figsize=(14, 8), layout="constrained")
    panels = figure.subplots(2, 3).ravel()
    for name, row in found.items():
        panels[0].scatter(row["p50_ms"], row.get("recall_at_10", 1))
        panels[0].annotate(name, (row["p50_ms"], row.get("recall_at_10", 1)))
        curve = sorted((effort["p50_ms"], effort.get("recall_at_10", 1)) for effort in [row, *row["efforts"]])
        panels[0].plot([ms for ms, _ in curve], [recall for _, recall in curve], marker=".")
    panels[0].set(xscale="log", xlabel="p50, ms", ylabel="recall@10 against exact MaxSim")
    for panel, (key, label) in zip(panels[1:], BARS.items(), strict=True):
        panel.barh(list(found), [row[key] for row in found.values()], log=key in {"p95_ms", "qps"})
        panel.invert_yaxis()
        panel.set_title(label)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)
    print(f"plot: {file}", file=sys.stderr)
    return True
