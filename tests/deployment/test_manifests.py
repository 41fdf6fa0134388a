"""compose.yaml and the chart, held against the tools that will read them.

Needs the packages of `requirements/deploy.txt` and nothing of the project: `make deploy-check`.
"""

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from helm_python import HelmError
from helm_python.chart import Chart, lint

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "vlibrary"
COMPOSE = Path(sys.executable).parent / "docker-compose"
KUBERNETES = "1.31"
EVERYTHING: dict[str, Any] = {
    "image": {"registry": "registry.test/team", "pullSecrets": [{"name": "pull"}]},
    "workerSecret": {"existingSecret": "mine"},
    "objects": {
        "url": "s3://bucket/library",
        "environment": [{"name": "AWS_REGION", "value": "eu-central-1"}],
    },
    "api": {
        "replicas": 1,
        "ingress": {"enabled": True, "className": "nginx", "tlsSecret": "tls"},
        "nodeSelector": {"kind": "cpu"},
    },
    "worker": {
        "replicas": 3,
        "gpu": {"enabled": False},
        "cache": {"size": "20Gi", "storageClassName": "fast"},
        "environment": [{"name": "VLIBRARY_MAX_ROWS", "value": "32"}],
    },
    "networkPolicy": {"enabled": False},
}


def compose(*options: str, variables: dict[str, str] | None = None) -> dict[str, Any]:
    found = subprocess.run(  # noqa: S603 - a fixed tool
        [COMPOSE, "--file", "compose.yaml", *options, "config", "--format", "json"],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", **(variables or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    assert found.stderr == ""
    read: dict[str, Any] = json.loads(found.stdout)
    return read


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = compose("--profile", "gpu")["services"]
    return found


def test_compose_reads_the_file_with_and_without_a_gpu() -> None:
    without = {"postgres", "migrate", "api", "worker"}
    assert set(compose()["services"]) == without
    assert set(compose("--profile", "gpu")["services"]) == {*without, "worker-gpu"}


def test_every_service_is_limited_read_only_and_without_privileges(
    services: dict[str, Any],
) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert {"memory", "pids"} <= set(service["deploy"]["resources"]["limits"]), name
        assert name == "migrate" or service["healthcheck"]["test"], name


def test_no_service_is_promised_processors_that_a_small_machine_has_not(
    services: dict[str, Any],
) -> None:
    """Docker refuses to start what may use more of them than there are."""
    for name, service in services.items():
        assert float(service["deploy"]["resources"]["limits"].get("cpus", 0)) <= 1, name
    chosen = compose(variables={"VLIBRARY_WORKER_CPUS": "4"})["services"]["worker"]
    assert float(chosen["deploy"]["resources"]["limits"]["cpus"]) == 4


def test_postgres_is_healthy_only_once_others_reach_it(services: dict[str, Any]) -> None:
    """While its folder is set up it answers by its socket alone."""
    test = services["postgres"]["healthcheck"]["test"]
    assert test[:4] == ["CMD", "pg_isready", "--host", "127.0.0.1"]


def test_secrets_come_as_files_and_only_the_api_is_published(services: dict[str, Any]) -> None:
    for name, service in services.items():
        for variable, value in service.get("environment", {}).items():
            is_secret = "PASSWORD" in variable or "SECRET" in variable
            assert not is_secret or value.startswith("/run/secrets/"), (name, variable)
        assert ("ports" in service) == (name == "api"), name
    (port,) = services["api"]["ports"]
    assert port["host_ip"] == "127.0.0.1"
    assert services["postgres"]["networks"] == {"inside": None}


def test_postgres_keeps_its_data_where_version_18_wants_it(services: dict[str, Any]) -> None:
    postgres = services["postgres"]
    assert postgres["image"] == "postgres:18"
    kept = [(volume["type"], volume["target"]) for volume in postgres["volumes"]]
    assert kept == [("volume", "/var/lib/postgresql")]


def test_the_gpu_is_reserved_by_its_profile_alone(services: dict[str, Any]) -> None:
    reserved = services["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert reserved == [{"capabilities": ["gpu"], "driver": "nvidia", "count": 1}]
    assert "reservations" not in services["worker"]["deploy"]["resources"]
    chosen = compose("--profile", "gpu", variables={"VLIBRARY_WORKERS": "http://worker-gpu:8001"})
    environment = chosen["services"]["api"]["environment"]
    assert environment["VLIBRARY_WORKERS"] == "http://worker-gpu:8001"


def texts(values: dict[str, Any]) -> dict[str, str]:
    with Chart.load(CHART) as chart:
        chart.validate_schema(values)
        found: dict[str, str] = chart.render(values, name="library", namespace="here")
        return found


def rendered(values: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for path, text in texts(values).items():
        if not path.endswith(".txt"):
            yield from (document for document in yaml.safe_load_all(text) if document)


def key_pod(values: dict[str, Any]) -> dict[str, Any]:
    """What the chart's notes have people run for the first key, as the pod that it becomes."""
    (notes,) = (text for path, text in texts(values).items() if path.endswith("NOTES.txt"))
    (words,) = (shlex.split(part) for part in notes.split("\n\n") if "kubectl run" in part)
    options = dict(word.removeprefix("--").split("=", 1) for word in words if "=" in word)
    spec: dict[str, Any] = json.loads(options["overrides"])["spec"]
    assert options["image"] == spec["containers"][0]["image"]
    return spec


def test_helm_finds_nothing_wrong_with_the_chart() -> None:
    report = lint(CHART, strict=True)
    assert report["errors"] == []
    assert [message for message in report["messages"] if message["severity"] > 1] == []


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_what_the_chart_makes_is_what_kubernetes_takes(values: dict[str, Any]) -> None:
    kinds = []
    for document in rendered(values):
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
        kinds.append(document["kind"])
    assert {"Deployment", "StatefulSet", "Service"} <= set(kinds)
    assert ("Ingress" in kinds) == bool(values)
    assert ("NetworkPolicy" in kinds) != bool(values)


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_the_first_key_is_made_by_a_pod_that_kubernetes_takes(values: dict[str, Any]) -> None:
    spec = key_pod(values)
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "keys"}, "spec": spec}
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    # Or nothing is attached to it, and the key is not seen.
    assert spec["containers"][0]["stdin"] is True
    assert spec.get("imagePullSecrets") == values.get("image", {}).get("pullSecrets")


def test_every_pod_is_read_only_and_without_privileges() -> None:
    pods = [
        document["spec"]["template"]["spec"]
        for document in rendered({})
        if document["kind"] in {"Deployment", "StatefulSet"}
    ]
    assert len(pods) == 2
    for pod in [*pods, key_pod({})]:
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["automountServiceAccountToken"] is False
        # A Service called vlibrary would set VLIBRARY_PORT.
        assert pod["enableServiceLinks"] is False
        for container in [*pod.get("initContainers", []), *pod["containers"]]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True
            assert security["allowPrivilegeEscalation"] is False
            assert security["capabilities"] == {"drop": ["ALL"]}


def test_the_api_is_probed_by_a_name_that_it_always_answers() -> None:
    # A pod's address is none of VLIBRARY_ALLOWED_HOSTS.
    (pod,) = (
        document["spec"]["template"]["spec"]
        for document in rendered({})
        if document["kind"] == "Deployment"
    )
    (container,) = pod["containers"]
    for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
        host = {"name": "Host", "value": "localhost"}
        assert container[kind]["httpGet"]["httpHeaders"] == [host]


def test_the_api_knows_every_worker_by_its_name() -> None:
    by_kind = {document["kind"]: document for document in rendered({"worker": {"replicas": 2}})}
    (container,) = by_kind["Deployment"]["spec"]["template"]["spec"]["containers"]
    workers = by_kind["StatefulSet"]["spec"]
    name, domain = by_kind["StatefulSet"]["metadata"]["name"], workers["serviceName"]
    urls = next(one["value"] for one in container["env"] if one["name"] == "VLIBRARY_WORKERS")
    assert urls == ",".join(f"http://{name}-{place}.{domain}:8001" for place in range(2))
    (worker,) = workers["template"]["spec"]["containers"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == 1


def test_a_prometheus_may_be_let_in_to_the_workers() -> None:
    monitoring = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}
    }
    peers = []
    for extra in ([], [monitoring]):
        found = {one["kind"]: one for one in rendered({"networkPolicy": {"from": extra}})}
        kubernetes_validate.validate(found["NetworkPolicy"], KUBERNETES, strict=True)
        (rule,) = found["NetworkPolicy"]["spec"]["ingress"]
        peers.append(rule["from"])
    assert peers[1] == [*peers[0], monitoring]
    assert len(peers[0]) == 1


@pytest.mark.parametrize(
    "values",
    [
        {"api": {"replicas": 0}},
        {"apii": {}},
        {"objects": {"url": "ftp://x"}},
        {"database": {"existingSecret": ""}},
        {"worker": {"gpu": {"enabled": "yes"}}},
    ],
)
def test_values_that_make_no_sense_are_refused(values: dict[str, Any]) -> None:
    with Chart.load(CHART) as chart, pytest.raises(HelmError):
        chart.validate_schema(values)
