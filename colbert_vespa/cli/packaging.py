"""`app`, `plan` and `deploy`: generate an application package, compute its resources, and deploy it."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from colbert_vespa.cli.console import Output
from colbert_vespa.cli.source_options import field_types, with_columns
from feeder.feeding.survey import survey
from feeder.sources import SourceSettings, check_columns, open_sources
from late_interaction.bundle import Bundle
from late_interaction.bundle_cache import register_bundle
from late_interaction.errors import UsageError
from vespa_app import AppSettings, build_package, check_package, default_settings
from vespa_app.changes import BlueGreenPackage, Change, build_beside, package_changes
from vespa_app.deploying import deploy, plan_shipment
from vespa_app.package import read_settings
from vespa_app.package.explain import address_of
from vespa_app.planning import PlanRequest, make_plan

__all__ = ["chosen_settings", "deploy_package", "plan_application", "show_deployment", "write_package"]


def chosen_settings(
    bundle: Bundle,
    settings: Path | None,
    *,
    codec: str | None,
    candidates: Sequence[str],
    sample: Sequence[str],
    recall: float | None = None,
    columns: Sequence[str] | None = None,
    types: Sequence[str] | None = None,
) -> AppSettings:
    """Return the settings from app.toml, or make them from the documents given as a sample."""
    if settings:
        if codec or candidates or sample or types or recall is not None:
            raise UsageError(
                "--settings has codec, candidates, fields and effort (probes, rerank); change them there, or omit --settings"
            )
        return read_settings(settings)
    if columns and not sample:
        raise UsageError("--column applies to the documents of --sample; give --sample")
    sources = open_sources(sample, with_columns(SourceSettings(), columns))
    surveyed = survey((document for source in sources for document in source), types=field_types(types))
    check_columns(sources)
    surveyed.check_types()
    return default_settings(bundle, surveyed.schema, codec=codec, candidates=tuple(candidates), recall=recall)


def write_package(
    out: Output,
    bundle: Bundle,
    chosen: AppSettings,
    output: Path,
    *,
    diff: Path | None = None,
    beside: Path | None = None,
    switch: bool = False,
    explain: bool = False,
) -> dict[str, object]:
    """Write an application package and report what it contains.

    Args:
        out: Where progress and results are shown.
        bundle: The bundle that the application serves.
        chosen: Settings of the application.
        output: Folder of the new package.
        diff: A package to compare the new one with.
        beside: The running package, whose indexes stay beside the new one.
        switch: Make the new index the default.
        explain: Also write README.md.

    Returns:
        The result as it is printed with `--json`.
    """
    if diff:
        check_package(diff)
    pair = build_beside(bundle, chosen, beside, switch=switch) if beside else None
    package = pair.package if pair else build_package(bundle, chosen)
    with tempfile.TemporaryDirectory() as scratch:  # --diff may name the folder that is about to be replaced
        old = Path(shutil.copytree(diff, Path(scratch) / "old")) if diff else None
        (package.explained() if explain else package).write(output)
        changes = package_changes(old, output) if old else ()
    register_bundle(bundle)
    out.say(f"application package written to {output}")
    out.table(
        {
            "codec": chosen.codec,
            "candidates": ", ".join(chosen.candidates),
            "metadata": ", ".join(f"{n} ({t.value})" for n, t in chosen.metadata.fields.items()) or "none",
        }
    )
    ours = next(index for index in package.description.all if index.bundle_sha256 == bundle.sha256)
    if ours.embedder_differences:
        out.say(
            "note: feed and search encode with the bundle. Vespa's own embedder, for clients without it, encodes otherwise:"
        )
        for difference in ours.embedder_differences:
            out.say(f"  {difference}")
    result: dict[str, object] = {"package": str(output), "codec": chosen.codec, "candidates": list(chosen.candidates),
            "metadata": chosen.metadata.to_json(), "indexes": list(package.description.schemas),
            "embedder_differences": list(ours.embedder_differences)}  # fmt: skip
    if diff:
        _show_changes(out, bundle.path, output, diff, changes)
        result["changes"] = [change.to_json() for change in changes]
    if pair:
        _show_steps(out, bundle.path, output, pair, switch=switch)
    return result


def _show_changes(out: Output, bundle: Path, output: Path, old: Path, changes: Sequence[Change]) -> None:
    out.heading(f"deploying it over {old}:")
    if not changes:
        out.say("nothing changes")
        return
    out.changes(changes)
    if allow := dict.fromkeys(change.allow for change in changes if change.allow):
        out.say("Vespa accepts it only with:")
        out.command(f"colbert-vespa deploy {output} " + " ".join(f"--allow {name}" for name in allow))
    if any(change.kind in ("refeed", "reindex") for change in changes):
        out.say("To keep answering from the old documents until the new ones are there:")
        out.command(f"colbert-vespa app {bundle} -o NEW --settings {output}/app.toml --beside {old}")


def _show_steps(out: Output, bundle: Path, output: Path, pair: BlueGreenPackage, *, switch: bool) -> None:
    """Print the remaining commands from indexes side by side to the new ones alone."""
    settings = f"--settings {output}/app.toml"
    described = pair.package.description
    asked, url = described.schemas[0], address_of(described.settings)
    out.heading(f"{', '.join((*pair.old, *pair.new))} side by side; queries that name no index use {asked}:")
    out.command(f"colbert-vespa deploy {output}")
    if not switch:
        for new in pair.new:
            out.command(f"colbert-vespa feed DOCUMENTS --bundle {bundle} --to '{url}#{new}'")
        out.command(f"colbert-vespa search QUERY --from '{url}#{pair.old[0]}' --from '{url}#{pair.new[0]}'")
        out.say("then switch:")
        out.command(f"colbert-vespa app {bundle} -o SWITCHED {settings} --beside {output} --switch")
        out.command("colbert-vespa deploy SWITCHED")
    out.say(f"to go back, deploy the package before; to remove {', '.join(pair.old)} permanently:")
    out.command(f"colbert-vespa app {bundle} -o ALONE {settings}")
    out.command("colbert-vespa deploy ALONE --allow schema-removal")


def plan_application(
    out: Output,
    documents: float,
    tokens: float,
    settings: Path | None,
    changes: Mapping[str, object],
    bundle: Path | None = None,
) -> dict[str, object]:
    """Print the plan of an application.

    Args:
        out: Where the plan is shown.
        documents: Number of passages.
        tokens: Token vectors per passage.
        settings: An app.toml.
        changes: Options of the command line, which override `settings`; None if not given.
        bundle: A bundle whose codebook is used.

    Returns:
        The result as it is printed with `--json`.
    """
    known = PlanRequest.of(AppSettings.from_toml(settings), documents, tokens) if settings else PlanRequest(documents, tokens)
    if bundle:
        known = known.with_bundle(Bundle.open(bundle, verify=False))
    given: dict[str, Any] = {name: value for name, value in changes.items() if value is not None}
    if "redundancy" in given and "searchable_copies" not in given:
        given["searchable_copies"] = given["redundancy"]
    plan = make_plan(dataclasses.replace(known, **given))
    out.plan(plan)
    if table := plan.cloud_toml():
        out.say("\nnode resources for app.toml on Vespa Cloud:\n")
        for line in table.splitlines():
            out.command(line)
    return plan.to_json()


def deploy_package(
    out: Output, package: Path, target: str, *, query_url: str | None, timeout: float | None, allow: Sequence[str]
) -> dict[str, object]:
    """Deploy a package and wait until the application serves.

    Args:
        out: Where progress is shown.
        package: Folder of the package.
        target: docker, cloud, cloud-prod, or the URL of the config server.
        query_url: URL of the application, if it is not the usual one.
        timeout: Seconds to wait until every service is up; None for the default.
        allow: Changes to allow that are refused by default.

    Returns:
        The result as it is printed with `--json`.
    """
    report = deploy(package, target, query_url=query_url, timeout=timeout, allow=tuple(allow), progress=out.say)
    out.say(f"serving at {report.query_url} after {report.seconds:.0f} s")
    return report.to_json()


def show_deployment(
    out: Output, package: Path, target: str, *, query_url: str | None, allow: Sequence[str]
) -> dict[str, object]:
    """Show what `deploy` would send, without sending it."""
    shipment = plan_shipment(package, target, query_url=query_url, allow=allow)
    out.say(f"would send {shipment.zip_bytes / 1e6:.3f} MB (zipped) to {shipment.session_url}")
    out.table({name: f"{size:,} bytes" for name, size in shipment.files.items()})
    out.table({name: "set" if known else "not set" for name, known in shipment.credentials.items()})
    if shipment.query_url:
        usual = "" if query_url else ", the usual port,"
        out.say(f"then wait until {shipment.query_url}{usual} answers")
    return shipment.to_json()
