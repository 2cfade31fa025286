"""What an application needs: memory, disk, nodes, and an estimate of query cost.

Every figure carries its formula and the sources of its numbers. Memory decides: token vectors, the candidate structures and
the ids are attributes, which Vespa keeps in memory. Times are those of the project's measurements on 2 cores, scaled by
work; they show which setting costs what, not what your machine does.
"""

from __future__ import annotations

from vespa_app.planning.plan import Plan, make_plan
from vespa_app.planning.request import Figure, PlanRequest

__all__ = ["Figure", "Plan", "PlanRequest", "make_plan"]
