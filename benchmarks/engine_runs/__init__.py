"""One file per engine: what `benchmarks.engines` runs in a process of its own, in that engine's environment.

    python FILE build|search DATA INDEX OUT

DATA has vectors.npy [T, d], offsets.npy [n + 1], queries.npy [R, d], query_offsets.npy [q + 1]; the same numbers without
headers in *.bin. OUT becomes one JSON object: for build `seconds` and `bytes`, for search `ids` (ten a query) and `ms`; both
with `peak_rss_mb`.
"""
