"""One file per engine: what `benchmarks.engines` runs in a process of its own, in that engine's environment.

    python FILE build|search DATA INDEX OUT

DATA is described in benchmarks/engine_data.py. OUT becomes one JSON object: for build `seconds`; for search `open_s`, `ids`
(ten a query), `ms` of each and `cpu_s` of all; both with `peak_rss_mb`.
"""
