"""What a new package means for Vespa and for stored documents; a new bundle beside the old one."""

from __future__ import annotations

from vespa_app.changes.blue_green import BlueGreenPackage, build_beside
from vespa_app.changes.comparing import Change, package_changes

__all__ = ["BlueGreenPackage", "Change", "build_beside", "package_changes"]
