"""What deploys the service, each file checked by its own linter; and that it names what is really there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from prometheus_client import REGISTRY

from ivr import metrics
from ivr.keys import Keyring
from ivr.ops.cli import main
from ivr.settings import Settings

DEPLOY = Path(__file__).parent.parent / "deploy"
BIN = Path(sys.executable).parent


def lint(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env={"PATH": str(BIN), "HOME": "/tmp"} | environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_dockerfile() -> None:
    lint(BIN / "hadolint", DEPLOY / "Dockerfile")
    told = (DEPLOY / "Dockerfile").read_text()
    assert re.search(r"^USER \d+$", told, re.MULTILINE), "not as root"


def test_what_compose_is_told() -> None:
    lint(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml")
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    for name in ("web", "worker"):
        assert services[name]["read_only"]
        assert services[name]["cap_drop"] == ["ALL"]
    assert "noeviction" in services["redis"]["command"]


def test_the_proxy() -> None:
    told = lint(
        BIN / "caddy", "validate", "--config", DEPLOY / "Caddyfile", "--adapter", "caddyfile",
        IVR_DOMAIN="pay.example.com",
    )  # fmt: skip
    assert "Valid configuration" in told


@pytest.mark.parametrize("name", ["web", "worker", "network"])
def test_what_kubernetes_is_told(name: str) -> None:
    path = DEPLOY / "kubernetes" / f"{name}.yaml"
    told = lint(BIN / "kubernetes-validate", "--strict", path)
    documents = list(yaml.safe_load_all(path.read_text()))
    assert told.count("passed") == len(documents)
    for document in documents:
        if document["kind"] == "Deployment":
            pod = document["spec"]["template"]["spec"]
            assert pod["securityContext"]["runAsNonRoot"]
            assert all(c["securityContext"]["readOnlyRootFilesystem"] for c in pod["containers"])


def test_the_ingress_lets_only_named_addresses_reach_the_console() -> None:
    documents = yaml.safe_load_all((DEPLOY / "kubernetes" / "network.yaml").read_text())
    reached = {
        path["path"]: document["metadata"]["annotations"].get("nginx.ingress.kubernetes.io/whitelist-source-range")
        for document in documents
        if document["kind"] == "Ingress"
        for rule in document["spec"]["rules"]
        for path in rule["http"]["paths"]
    }
    assert reached.pop("/desk")
    assert not {"/", "/metrics"} & reached.keys()


def test_kustomize_names_every_file() -> None:
    named = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())["resources"]
    assert sorted(named) == sorted(p.name for p in (DEPLOY / "kubernetes").iterdir() if p.name != "kustomization.yaml")


@pytest.mark.parametrize("name", ["ivr-web", "ivr-worker"])
def test_the_systemd_units(name: str, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed: apt-get install systemd")
    unit = tmp_path / f"{name}.service"
    # The programs are not installed here.
    unit.write_text((DEPLOY / "systemd" / unit.name).read_text().replace("/opt/ivr/bin/", f"{BIN}/"))
    told = lint(analyze, "verify", "--man=no", unit, SYSTEMD_LOG_LEVEL="warning")
    assert str(unit) not in told


def test_every_setting_that_is_named_exists() -> None:
    ours = {f"IVR_{name.upper()}" for name in Settings.model_fields}
    ours |= {"IVR_BIND", "IVR_THREADS", "IVR_DOMAIN", "IVR_UPSTREAM", "IVR_DESK_FROM"}  # of gunicorn, and of the proxy
    named = {
        word
        for path in DEPLOY.rglob("*")
        if path.is_file()
        for word in re.findall(r"\bIVR_[A-Z_]+", path.read_text())
    }
    assert named
    assert named <= ours


def test_the_dashboard_and_the_alerts_ask_for_what_is_measured() -> None:
    assert metrics.CALLS
    known = {name for family in REGISTRY.collect() for name in [family.name]}
    known |= {"ivr_payments_undecided", "ivr_jobs_due", "ivr_jobs_late_seconds", "ivr_approvals_open"}
    known |= {"ivr_webhooks_waiting"}
    board = json.loads((DEPLOY / "grafana" / "pay-by-voice.json").read_text())
    asked = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    alerts = yaml.safe_load((DEPLOY / "alerts.yaml").read_text())
    asked += [rule["expr"] for group in alerts["groups"] for rule in group["rules"]]
    names = {re.sub(r"_(total|bucket|count|sum)$", "", n) for expr in asked for n in re.findall(r"\bivr_\w+", expr)}
    assert names
    assert names <= known


def test_gunicorn_takes_its_settings(tmp_path: Path) -> None:
    lint(BIN / "gunicorn", "--check-config", "--config", "python:ivr.ops.gunicorn", "flask:Flask('x')")


def test_keys_are_made_once(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    assert CliRunner().invoke(main, ["keys", "make", str(path)]).exit_code == 0
    made = path.read_text()
    assert CliRunner().invoke(main, ["keys", "make", str(path)]).exit_code == 1
    assert path.read_text() == made
    assert path.stat().st_mode & 0o077 == 0
    Keyring.load(Settings(keys_file=path, digit_model_dir=tmp_path, voice_model_dir=tmp_path, _env_file=None))
