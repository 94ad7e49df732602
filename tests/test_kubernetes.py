"""Dask clusters on Kubernetes: what is asked for, held to the operator's schema, and a stand-in of the API server."""

from __future__ import annotations

import gc
import json
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from dask_programs import running_scheduler, worker_arguments
from distributed.cli import dask_scheduler
from kubernetes_api import KubernetesApi, cluster_schema

from restore.cluster.executors import executor, kubernetes_spec
from restore.cluster.settings import Kubernetes, load_executor, resources
from restore.errors import ClusterError

FILMS = Kubernetes(
    image="registry.example/restore:1",
    environment={"AWS_ENDPOINT_URL": "https://s3.example"},
    secrets=("restore-s3",),
    volumes={"restore-films": "/films"},
    node_selector={"pool": "gpu"},
    maximum=4,
)


@pytest.mark.parametrize("settings", [FILMS, Kubernetes(image="x", gpus=0), load_executor("kubernetes")])
def test_a_dask_cluster_is_what_the_operator_knows(settings: Kubernetes) -> None:
    spec = kubernetes_spec(settings, "restore-1")["spec"]
    check = jsonschema.Draft202012Validator(cluster_schema())
    check.validate(spec)
    spec["worker"]["spec"]["containers"][0]["resource"] = {}
    with pytest.raises(jsonschema.ValidationError, match="'resource' was unexpected"):
        check.validate(spec)


def test_a_pod_of_a_worker_has_one_gpu_and_its_secrets_by_reference_only() -> None:
    spec = kubernetes_spec(FILMS, "restore-1")["spec"]
    (worker,) = spec["worker"]["spec"]["containers"]
    assert worker["resources"]["limits"] == {"memory": "16Gi", "nvidia.com/gpu": "1"}
    assert worker["envFrom"] == [{"secretRef": {"name": "restore-s3"}}]
    assert {"name": "AWS_ENDPOINT_URL", "value": "https://s3.example"} in worker["env"]
    assert worker["volumeMounts"] == [{"name": "restore-films", "mountPath": "/films"}]
    assert spec["worker"]["spec"]["nodeSelector"] == {"pool": "gpu"}
    (scheduler,) = spec["scheduler"]["spec"]["containers"]
    assert "nvidia.com/gpu" not in json.dumps(scheduler)
    assert "secretRef" not in json.dumps(scheduler)
    assert spec["idleTimeout"] == 900


def test_pods_start_programs_that_are_there() -> None:
    spec = kubernetes_spec(FILMS, "restore-1")["spec"]
    dask, command, *arguments = spec["worker"]["spec"]["containers"][0]["args"]
    assert (dask, command) == ("dask", "worker")
    worker = worker_arguments(["tcp://scheduler:8786", *arguments])
    assert (worker["nthreads"], worker["resources"], worker["memory_limit"]) == (1, "GPU=1", "0")
    dask, command, *arguments = spec["scheduler"]["spec"]["containers"][0]["args"]
    assert (dask, command) == ("dask", "scheduler")
    assert dask_scheduler.main.make_context("dask scheduler", arguments).params["host"] == "0.0.0.0"


@pytest.fixture
def kubernetes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Start stand-ins for a Kubernetes API server."""
    started = []

    def start(scheduler: str, operator: bool = True) -> KubernetesApi:
        api = KubernetesApi(scheduler, operator)
        threading.Thread(target=api.serve_forever, daemon=True).start()
        started.append(api)
        monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path)))
        return api

    yield start
    for api in started:
        api.shutdown()
        api.server_close()
    gc.collect()  # kr8s leaves its connections to the collector


leaves_connections = pytest.mark.filterwarnings(
    "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)


@leaves_connections
def test_a_cluster_on_kubernetes_is_made_used_and_deleted(kubernetes: Any, tmp_path: Path) -> None:
    with running_scheduler(tmp_path) as scheduler:
        api = kubernetes(scheduler)
        with executor(FILMS) as client:
            assert client.submit(sum, [1, 2], resources=resources(FILMS)).result(timeout=60) == 3
            name = api.created["DaskCluster"]["metadata"]["name"]
            scaling = api.created["DaskAutoscaler"]["spec"]
    assert re.fullmatch(r"restore-[0-9a-f]{10}", name)
    assert scaling == {"cluster": name, "minimum": 0, "maximum": 4}
    assert api.deleted["DaskCluster"]["metadata"]["name"] == name


@leaves_connections
def test_kubernetes_without_the_operator_is_an_error(kubernetes: Any) -> None:
    kubernetes("127.0.0.1:1", operator=False)
    with pytest.raises(ClusterError, match="the Dask operator is not installed there"), executor(FILMS):
        pass


@leaves_connections
def test_kubernetes_out_of_reach_is_an_error(kubernetes: Any) -> None:
    api = kubernetes("127.0.0.1:1")
    api.shutdown()
    api.server_close()
    with pytest.raises(ClusterError, match="no Dask cluster can be started on Kubernetes"), executor(FILMS):
        pass
