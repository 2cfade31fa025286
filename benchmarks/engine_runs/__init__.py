"""One file per engine: what `benchmarks.engines` runs in a process of its own, in that engine's environment.

    python FILE build|search DATA INDEX OUT

DATA is described in benchmarks/engine_data.py. EFFORTS: a JSON list of objects, the engine's own settings of a search. OUT
becomes one JSON object: for build `seconds`; for search, with the engine's defaults, `open_s`, `ids` (ten a query), `ms` of
each and `cpu_s` of all, and `efforts`, one object for each of EFFORTS: `effort`, `ids`, `ms`, `cpu_s`; both with `peak_rss_mb`,
for a search that of the defaults. Efforts that would begin after 20 minutes are left out.
"""
