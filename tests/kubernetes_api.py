"""As much of a Kubernetes API server as it takes to start a Dask cluster: what is created is kept, the rest canned."""

from __future__ import annotations

import json
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

_CORE = [
    {"name": "pods", "singularName": "pod", "kind": "Pod", "namespaced": True, "shortNames": []},
    {"name": "services", "singularName": "service", "kind": "Service", "namespaced": True, "shortNames": []},
]
_READY = [{"type": "ContainersReady", "status": "True"}, {"type": "Ready", "status": "True"}]

Resource = dict[str, Any]


@cache
def cluster_schema() -> dict[str, Any]:
    """The schema that the Dask operator installs for what is in a cluster, pods included, refusing what is unknown."""
    place = "operator/deployment/helm/dask-kubernetes-operator/crds/daskcluster.yaml"
    definition = yaml.load((files("dask_kubernetes") / place).read_text(), yaml.CSafeLoader)
    found: dict[str, Any] = _strict(definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    spec: dict[str, Any] = found["properties"]["spec"]
    return spec


def _strict(schema: Any) -> Any:
    """Turn an OpenAPI schema of Kubernetes into a JSON schema."""
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    found = {key: _strict(value) for key, value in schema.items()}
    if isinstance(found.get("properties"), dict) and not found.get("x-kubernetes-preserve-unknown-fields"):
        found.setdefault("additionalProperties", False)
    return found


class KubernetesApi(ThreadingHTTPServer):
    """Answers on loopback like a cluster whose Dask operator starts every scheduler at one address.

    Attributes:
        created: Resources that exist, by kind.
        deleted: Resources that existed, by kind.
    """

    daemon_threads = True

    def __init__(self, scheduler: str, operator: bool = True) -> None:
        """Listen on a free port.

        Args:
            scheduler: Host and port of a Dask scheduler that runs.
            operator: Whether the Dask operator is installed.
        """
        super().__init__(("127.0.0.1", 0), _Handler)
        self.scheduler, self.operator = scheduler, operator
        self.created: dict[str, Resource] = {}
        self.deleted: dict[str, Resource] = {}

    def kubeconfig(self, folder: Path) -> Path:
        """Write a file that leads clients here."""
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "films"}}],
            "clusters": [{"name": "test", "cluster": {"server": f"http://127.0.0.1:{self.server_port}"}}],
            "users": [{"name": "test", "user": {"token": "test"}}],
        }
        path = folder / "kubeconfig"
        path.write_text(yaml.safe_dump(content))
        return path

    def find(self, plural: str) -> Resource | None:
        """Return the one resource of a kind that there is, as the operator and the cluster would have completed it."""
        if plural == "daskautoscalers":
            return self.created.get("DaskAutoscaler")
        cluster = self.created.get("DaskCluster")
        if cluster is None:
            return None
        host, port = self.scheduler.split(":")
        about = {"name": f"{cluster['metadata']['name']}-scheduler", "namespace": "films"}
        ports = [{"name": "tcp-comm", "port": int(port)}, {"name": "http-dashboard", "port": 8787}]
        known: dict[str, Resource] = {
            "daskclusters": {**cluster, "status": {"phase": "Running"}},
            "pods": {"kind": "Pod", "metadata": about, "status": {"phase": "Running", "conditions": _READY}},
            "services": {
                "kind": "Service",
                "metadata": about,
                "spec": {"type": "LoadBalancer", "selector": {"name": about["name"]}, "ports": ports},
                "status": {"loadBalancer": {"ingress": [{"ip": host}]}},
            },
        }
        return known.get(plural)

    def discovery(self) -> dict[str, Resource]:
        """Return what the server says of itself, by path."""
        group = {"name": "kubernetes.dask.org", "versions": [{"groupVersion": "kubernetes.dask.org/v1"}]}
        return {
            "/version": {"major": "1", "minor": "33", "gitVersion": "v1.33.0"},
            "/api": {"versions": ["v1"]},
            "/api/v1": {"resources": _CORE},
            "/apis": {"groups": [group] if self.operator else []},
            "/apis/kubernetes.dask.org/v1": {"resources": []},
        }


class _Handler(BaseHTTPRequestHandler):
    server: KubernetesApi
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].rstrip("/")
        if (content := self.server.discovery().get(path)) is not None:
            return self._answer(content)
        parts = path.split("/namespaces/")[1].split("/")  # namespace, plural and, if one is asked for, its name
        found = self.server.find(parts[1])
        if len(parts) == 2:
            return self._answer({"kind": "List", "metadata": {}, "items": [found] if found else []})
        return self._answer(found) if found else self._not_found()

    def do_POST(self) -> None:
        body = json.loads(self._body())
        self.server.created[body["kind"]] = body
        self._answer(body, 201)

    def do_PATCH(self) -> None:
        self._body()
        self._not_found()

    def do_DELETE(self) -> None:
        self._body()
        kind = next(kind for kind in ("DaskCluster", "DaskAutoscaler") if f"/{kind.lower()}s/" in self.path)
        self.server.deleted[kind] = self.server.created.pop(kind)
        self._answer(self.server.deleted[kind])

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _not_found(self) -> None:
        self._answer({"kind": "Status", "status": "Failure", "message": "not found", "code": 404}, 404)

    def _answer(self, content: Any, status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
