"""What deploys the service, each file checked by its own linter; and that it names what is really there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from prometheus_client import REGISTRY

from ivr import metrics
from ivr.api.voice import prompts_folder
from ivr.keys import Keyring, make
from ivr.ops.cli import main
from ivr.ops.commands.worker import command as worker
from ivr.settings import Settings

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
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


def test_what_apps_play_outlives_a_restart_and_is_every_web_process_s() -> None:
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert "prompts:/data/app-prompts" in compose["services"]["web"]["volumes"]
    assert "prompts" in compose["volumes"]
    documents = {one["kind"]: one["spec"] for one in yaml.safe_load_all((DEPLOY / "kubernetes/web.yaml").read_text())}
    assert documents["PersistentVolumeClaim"]["accessModes"] == ["ReadWriteMany"]
    pod = documents["Deployment"]["template"]["spec"]
    [prompts] = [one["name"] for one in pod["volumes"] if "persistentVolumeClaim" in one]
    assert {"name": prompts, "mountPath": "/data/app-prompts"} in pod["containers"][0]["volumeMounts"]
    assert prompts_folder(Path("/data")) == Path("/data/app-prompts")


def test_the_image_is_made_of_what_the_dockerfile_copies() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    assert sorted(line[1:] for line in lines if line.startswith("!")) == sorted(" ".join(copied).split())
    assert {"**/*.env", "**/keys.json"} <= set(lines[-3:])


def test_git_takes_no_secret_of_an_installation() -> None:
    secret = [".env", "deploy/.env", "ivr.env", "keys.json", "keys.new", "deploy/keys/keys.json", "ivr.dump"]
    told = subprocess.run(
        ["git", "check-ignore", "--no-index", *secret, "deploy/env.example", "ivr/keys.py"],
        cwd=ROOT, capture_output=True, text=True,
    )  # fmt: skip
    assert told.stdout.split() == secret


def test_a_rotation_on_kubernetes_goes_as_written(tmp_path: Path) -> None:
    blocks = re.findall(r"```\n(.*?)```", (ROOT / "docs/deployment.md").read_text(), re.DOTALL)
    [written] = [block for block in blocks if "kubectl" in block and "ivr keys rotate" in block]
    pod, here = tmp_path / "pod", tmp_path / "here"
    for folder in (pod / "memory", here):
        folder.mkdir(parents=True)
    make(pod / "keys.json")
    before = json.loads((pod / "keys.json").read_text())
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(
        """#!/bin/sh
        case "$*" in
            *" exec "*) shift 5; exec "$@" ;;
            *" create secret "*) cat keys.new ;;
            *" replace "*) cat > secret ;;
            *" delete pods "*) touch restarted ;;
        esac
        """
    )
    kubectl.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{BIN}:/usr/bin:/bin", "HOME": "/tmp", "IVR_DATA_DIR": str(pod)}
    command = written.replace("/dev/shm", str(pod / "memory")).replace("/keys/keys.json", str(pod / "keys.json"))
    done = subprocess.run(["sh", "-c", command], cwd=here, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    after = json.loads((here / "secret").read_text())
    assert len(after["voiceprint"]["keys"]) == 2
    assert before["voiceprint"]["keys"].items() <= after["voiceprint"]["keys"].items()
    assert (here / "restarted").exists()
    assert list((pod / "memory").iterdir()) == []


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
    reached = {
        path["path"]: document["metadata"]["annotations"].get("nginx.ingress.kubernetes.io/whitelist-source-range")
        for document in _network()
        if document["kind"] == "Ingress"
        for rule in document["spec"]["rules"]
        for path in rule["http"]["paths"]
    }
    assert reached.pop("/desk")
    assert not {"/", "/metrics"} & reached.keys()
    assert "/health" in reached  # what `ivr twilio check` asks for


def test_no_ingress_keeps_a_log_of_requests() -> None:
    ingresses = [document for document in _network() if document["kind"] == "Ingress"]
    for ingress in ingresses:
        assert ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/enable-access-log"] == "false"


def test_only_the_ingress_controller_and_prometheus_reach_pods() -> None:
    [policy] = [document["spec"] for document in _network() if document["kind"] == "NetworkPolicy"]
    reached = {
        (peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"], port["port"])
        for rule in policy["ingress"]
        for peer in rule["from"]
        for port in rule["ports"]
    }
    assert reached == {("ingress-nginx", 8400), ("monitoring", 8400), ("monitoring", 8402)}


def test_prometheus_asks_workers_where_they_serve_metrics() -> None:
    jobs = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text())["scrape_configs"]
    [asked] = [found["port"] for job in jobs for found in job.get("dns_sd_configs", ())]
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["worker"]["command"]
    deployment = yaml.safe_load((DEPLOY / "kubernetes" / "worker.yaml").read_text())
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    unit = re.findall(r"^ExecStart=.*/(ivr .*)$", (DEPLOY / "systemd" / "ivr-worker.service").read_text(), re.MULTILINE)
    assert [port["containerPort"] for port in container["ports"]] == [asked]
    for command in (compose, container["command"], unit[0].split()):
        given = worker.make_context("worker", command[2:]).params
        assert given["metrics_port"] == asked, command


def _network() -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / "kubernetes" / "network.yaml").read_text()))


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
    # Else the first of the two to start would have a Redis of its own, and end the other's calls with it.
    assert re.search(r"^Environment=IVR_REDIS_URL=redis://\S+$", unit.read_text(), re.MULTILINE)
    assert re.search(r"^Wants=.*\bredis-server\.service\b", unit.read_text(), re.MULTILINE)


def test_every_setting_that_is_named_exists() -> None:
    ours = {f"IVR_{name.upper()}" for name in Settings.model_fields}
    ours |= {"IVR_BIND", "IVR_THREADS", "IVR_DOMAIN", "IVR_UPSTREAM", "IVR_DESK_FROM"}  # of gunicorn, and of the proxy
    named = {
        word for path in DEPLOY.rglob("*") if path.is_file() for word in re.findall(r"\bIVR_[A-Z_]+", path.read_text())
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
