"""A small server that answers as three hosts of Vespa do to one who watches: config server, cluster controller, container."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

from local_server import LocalServer, QuietHandler

from vespa_app.deploying.config_server import APPLICATION_PATH, CONVERGE_PATH
from vespa_app.running import Description
from vespa_app.running.description import DESCRIPTION_PATH
from vespa_app.settings import AppSettings

__all__ = ["FakeCluster"]

HOSTS = ("node1", "node2", "node3")
TYPES = ("container", "searchnode", "storagenode", "distributor")
SETTINGS = AppSettings(dim=16, query_rows=8, candidates=("exhaustive",))


class FakeCluster(LocalServer):
    """down: services that do not answer, as (host, type); cut: hosts that nothing reaches; stale: hosts whose
    last metrics are told again and again; behind: services whose
    configuration is old; user: states that an operator has set; replies: path -> (status, body) instead of ours."""

    def __init__(self) -> None:
        self.down: set[tuple[str, str]] = set()
        self.cut: set[str] = set()
        self.stale: set[str] = set()
        self.behind: set[tuple[str, str]] = set()
        self.user: dict[str, str] = {}
        self.health: dict[tuple[str, str], str] = {}
        self.replies: dict[str, tuple[int, object]] = {}
        self.used = {"disk": 0.3, "memory": 0.4}
        self.limits = {"disk": 0.75, "memory": 0.8}
        self.blocked = False
        self.rates = {"queries": 10.0, "degraded_queries": 0.0, "failed_queries": 0.0}
        self.p99_ms = 80.0
        self.documents = 1200
        self.coverage: dict[str, object] = {"coverage": 100, "documents": 1200, "full": True}
        self.texts = [f"passage number {number} of the index" for number in range(40)]
        self.paths: list[str] = []
        self.tokens: set[str | None] = set()
        fake = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fake.paths.append(self.path)
                fake.tokens.add(self.headers.get("Authorization"))
                self.answer(*fake.answer(urlsplit(self.path).path))

            do_POST = do_GET

        super().__init__(Handler)

    def services(self) -> list[tuple[str, str]]:
        return [("node1", "container-clustercontroller"), *((host, kind) for host in HOSTS for kind in TYPES)]

    def answers(self, host: str, kind: str) -> bool:
        return host not in self.cut and (host, kind) not in self.down

    def answer(self, path: str) -> tuple[int, object]:
        if path in self.replies:
            return self.replies[path]
        prefix = f"{APPLICATION_PATH}/service/"
        if path.startswith(prefix):
            kind, host = path.removeprefix(prefix).split("/")[:2]
            return 200, {"status": {"code": self.health.get((host, kind), "up")}}
        known = {
            "/state/v1/health": {"status": {"code": "up"}},
            CONVERGE_PATH: self.converged(),
            "/cluster/v2/content": self.state(),
            "/metrics/v2/values": self.metrics(),
            "/search/": {"root": {"fields": {"totalCount": self.documents}, "coverage": self.coverage}},
            DESCRIPTION_PATH: {"fields": {"description": json.dumps(Description(SETTINGS, "b" * 64, None).to_json())}},
            "/document/v1/colbert/passage/docid": {
                "documents": [{"fields": {"title": "T", "text": text}} for text in self.texts]
            },
        }
        return (200, known[path]) if path in known else (404, {"message": f"no {path}"})

    def converged(self) -> object:
        found = [
            {
                "host": host, "type": kind, "port": self.port if "controller" in kind else 19100,
                "currentGeneration": -1 if not self.answers(host, kind) else 6 if (host, kind) in self.behind else 7,
            }
            for host, kind in self.services()
        ]  # fmt: skip
        return {"services": found, "wantedGeneration": 7, "currentGeneration": 7, "converged": True}

    def state(self) -> object:
        def nodes(kind: str, service: str) -> dict[str, object]:
            found = {}
            for key, host in enumerate(HOSTS):
                name = self.user.get(host, "up" if self.answers(host, service) else "down")
                reason = "" if name == "up" else f"{host} {name}"
                found[str(key)] = {
                    "attributes": {"hierarchical-group": ""},
                    "state": {
                        "generated": {"state": name, "reason": reason},
                        "unit": {"state": "up", "reason": ""},
                        "user": {"state": name if host in self.user else "up", "reason": ""},
                    },
                    "metrics": {"unique-document-count": 800} if kind == "storage" else {},
                }
            return found

        kinds = {
            "storage": {"node": nodes("storage", "searchnode")},
            "distributor": {"node": nodes("distributor", "distributor")},
        }
        return {"state": {"generated": {"state": "up", "reason": ""}}, "service": kinds}

    def metrics(self) -> object:
        searchnode = {
            f"content.proton.resource_usage.{name}.average": value for name, value in self.used.items()
        } | {"content.proton.resource_usage.feeding_blocked.max": 0}  # fmt: skip
        controller = {f"cluster-controller.resource_usage.{name}_limit.max": value for name, value in self.limits.items()}
        controller["cluster-controller.resource_usage.nodes_above_limit.max"] = float(self.blocked)
        container = {f"{name}.rate": value for name, value in self.rates.items()}
        container |= {"query_latency.95percentile": self.p99_ms / 2, "query_latency.99percentile": self.p99_ms}
        values = {"container": container, "searchnode": searchnode, "container-clustercontroller": controller}

        def service(host: str, kind: str) -> object:
            told = 1_700_000_000 - (91 if host in self.stale else 59 if kind == "container" else 0)
            metrics = [{"values": {"cpu": 1.0}}, {"values": values.get(kind, {}), "dimensions": {"chain": "native"}}]
            return {"name": f"vespa.{kind}", "timestamp": told, "status": {"code": "up"}, "metrics": metrics}

        def node(host: str) -> object:
            own = [service(host, kind) for where, kind in self.services() if where == host and self.answers(host, kind)]
            return {"hostname": host, "role": "", "services": own}

        return {"nodes": [node(host) for host in HOSTS]}
