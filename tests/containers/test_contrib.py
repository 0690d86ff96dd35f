"""The Dockerfile and the manifests in contrib are right, and say what docs/containers.md says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from sockmgr.client.health import PATIENCE
from sockmgr.config import config
from tests.containers.box import USER
from tests.containers.image import DOCKERFILE, instructions
from tests.e2e.apps import ROOT
from tests.helpers.pages import whole_configs

MANIFESTS = ROOT / "contrib" / "kubernetes"
CUSTOM = yaml.safe_load((MANIFESTS / "kustomization.yaml").read_text())
CONFIG = (MANIFESTS / "sockmgr.toml").read_text()
OLDEST = "1.30"  # and the newest that the schemas are there for


def manifest(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((MANIFESTS / f"{name}.yaml").read_text())
    return found


def test_the_dockerfile_has_no_flaw_that_hadolint_finds() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_image_runs_sockmgr_as_pid_1_and_as_nobody_in_particular() -> None:
    says = dict(instructions(DOCKERFILE.read_text()))
    assert says["ENTRYPOINT"] == '["sockmgr"]'
    assert says["CMD"] == '["run"]'
    assert says["USER"] == str(USER)
    assert says["HEALTHCHECK"].endswith('CMD ["sockmgr", "health"]')


@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
@pytest.mark.parametrize("file", CUSTOM["resources"])
def test_the_manifests_are_what_kubernetes_takes(file: str, version: str) -> None:
    data = manifest(file.removesuffix(".yaml"))
    kubernetes_validate.validate(data, version, strict=True)


def test_the_kustomization_names_all_that_is_there() -> None:
    files = {*CUSTOM["resources"], *CUSTOM["configMapGenerator"][0]["files"]}
    assert files | {"kustomization.yaml"} == {path.name for path in MANIFESTS.iterdir()}


def test_the_manifests_are_about_the_same_pods() -> None:
    labels = manifest("deployment")["spec"]["template"]["metadata"]["labels"]
    assert manifest("deployment")["spec"]["selector"]["matchLabels"] == labels
    assert manifest("pdb")["spec"]["selector"]["matchLabels"] == labels
    assert manifest("service")["spec"]["selector"] == labels
    volumes = manifest("deployment")["spec"]["template"]["spec"]["volumes"]
    assert volumes[0]["configMap"]["name"] == CUSTOM["configMapGenerator"][0]["name"]


def test_the_times_of_the_config_and_of_the_pod_fit_each_other() -> None:
    read = config.parse(CONFIG.encode(), file="sockmgr.toml")
    (service,) = read.services
    pod = manifest("deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    ready, grace = container["readinessProbe"], pod["terminationGracePeriodSeconds"]
    assert ready["periodSeconds"] * ready["failureThreshold"] < read.stop_delay
    assert read.stop_delay + service.drain_timeout < grace
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["timeoutSeconds"] > PATIENCE
        assert container[probe]["exec"]["command"][:2] == ["sockmgr", "health"]
    (listen,) = read.listen
    assert listen.address.port == container["ports"][0]["containerPort"]


def test_the_config_of_the_page_is_that_of_the_manifests() -> None:
    (shown,) = whole_configs(ROOT / "docs" / "containers.md")
    lines = [line for line in CONFIG.splitlines(keepends=True) if not line.startswith("#")]
    assert shown == "".join(lines)
