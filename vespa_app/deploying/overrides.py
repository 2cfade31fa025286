"""Changes that are refused unless allowed: Vespa's own, by their names, and one of ours."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta, timezone

from late_interaction.errors import UsageError
from vespa_app.changes.staleness import REFEED
from vespa_app.package.services import overrides_xml
from vespa_app.running import Description
from vespa_app.settings.names import CHANGES

__all__ = ["OVERRIDES_FILE", "overriding"]

OVERRIDES_FILE = "validation-overrides.xml"


def overriding(description: Description, allow: Collection[str]) -> dict[str, bytes]:
    """The package's file of overrides with `allow` in it, valid for today; tomorrow too, for clocks of other time zones.

    Raises: UsageError on a change that is not known.
    """
    known = {*CHANGES, REFEED}
    if unknown := sorted(set(allow) - known):
        raise UsageError(f"--allow {unknown[0]!r} is no change that is refused otherwise; known: {', '.join(sorted(known))}")
    until = (datetime.now(timezone.utc).date() + timedelta(days=1)).isoformat()
    of_vespa = [name for name in allow if name != REFEED]
    days = {**description.settings.allow, **dict.fromkeys(of_vespa, until)}
    return {OVERRIDES_FILE: overrides_xml(days).encode()} if of_vespa else {}
