"""`app`, `plan` and `deploy`: bundle and settings to application package, what it needs, and onto a Vespa."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from colbert_vespa.console import Output
from feeder.pipeline import survey
from feeder.sources import open_sources
from late_interaction.bundle import Bundle
from late_interaction.bundle_cache import register_bundle
from late_interaction.errors import UsageError
from late_interaction.metadata import MetadataSchema
from vespa_app import AppSettings, build_package, check_package, default_settings
from vespa_app.deploy import deploy
from vespa_app.planning import PlanRequest, make_plan

__all__ = ["deploy_package", "plan_application", "write_package"]


def write_package(
    out: Output,
    bundle: Path,
    output: Path,
    *,
    settings: Path | None,
    codec: str | None,
    candidates: Sequence[str],
    sample: Sequence[str],
) -> dict[str, object]:
    """Settings come from app.toml, or are made from the documents given as a sample."""
    opened = Bundle.open(bundle)
    if settings and (codec or candidates or sample):
        raise UsageError("--settings has codec, candidates and fields: change them there, or leave --settings out")
    if settings:
        chosen = AppSettings.from_toml(settings)
    else:
        documents = [document for source in open_sources(sample) for document in source]
        fields = survey(documents).schema if documents else MetadataSchema({})
        chosen = default_settings(opened, fields, codec=codec, candidates=tuple(candidates))
    package = build_package(opened, chosen)
    package.write(output)
    check_package(output)
    register_bundle(opened)
    out.say(f"application package written to {output}")
    out.table(
        {
            "codec": chosen.codec,
            "candidates": ", ".join(chosen.candidates),
            "metadata": ", ".join(f"{n} ({t.value})" for n, t in chosen.metadata.fields.items()) or "none",
        }
    )
    return {"package": str(output), "codec": chosen.codec, "candidates": list(chosen.candidates),
            "metadata": chosen.metadata.to_json()}  # fmt: skip


def plan_application(
    out: Output, documents: float, tokens: float, settings: Path | None, changes: Mapping[str, object]
) -> dict[str, object]:
    """changes: what the command line gives, which wins over `settings`; None is not given."""
    known = PlanRequest.of(AppSettings.from_toml(settings), documents, tokens) if settings else PlanRequest(documents, tokens)
    given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    if "redundancy" in given and "searchable_copies" not in given:
        given["searchable_copies"] = given["redundancy"]
    plan = make_plan(dataclasses.replace(known, **given))
    out.plan(plan)
    out.say("\nnode resources for app.toml on Vespa Cloud:\n")
    for line in plan.cloud_toml().splitlines():
        out.command(line)
    return plan.to_json()


def deploy_package(
    out: Output, package: Path, target: str, *, query_url: str | None, timeout: float, allow: Sequence[str]
) -> dict[str, object]:
    report = deploy(package, target, query_url=query_url, timeout=timeout, allow=tuple(allow), progress=out.say)
    out.say(f"serving at {report.query_url} after {report.seconds:.0f} s")
    return report.to_json()
