"""What is there to deploy: each file is checked by the program that reads it, where that is there,
and by what it says of aquipu in any case.
"""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
from prometheus_client import CollectorRegistry, generate_latest

from aquipu import Store
from aquipu.cli.app import app
from aquipu.cli.main import run
from aquipu.contrib.prometheus import exported

DEPLOY = Path(__file__).parents[2] / "aquipu" / "examples" / "deploy"
ROOT = DEPLOY.parents[2]
UNITS = sorted(path.name for path in DEPLOY.glob("*.service"))
yaml: Any = __import__("yaml")
"""It has no types here."""


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of all that a store really exports."""

    async def scraped() -> str:
        registry = CollectorRegistry()
        async with Store.open(tmp_path_factory.mktemp("made") / "store") as store:
            with exported(store, registry=registry):
                return generate_latest(registry).decode()

    return set(re.findall(r"^(?:# TYPE )?(aquipu_[a-z_]+)", asyncio.run(scraped()), re.MULTILINE))


def named_in(expressions: list[str]) -> set[str]:
    return {name for one in expressions for name in re.findall(r"\baquipu_[a-z_]+", one)}


# systemd


def unit(name: str) -> dict[str, list[str]]:
    """The settings of a unit, each with its values."""
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / name).read_text().splitlines():
        if line and not line.startswith(("#", "[")):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize("name", UNITS)
def test_systemd_takes_the_unit(name: str, tmp_path: Path) -> None:
    """`systemd-analyze verify` has nothing to say about it, but that no program is there yet."""
    text = (DEPLOY / name).read_text()
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    copy = tmp_path / name
    copy.write_text(
        re.sub(r"^ExecStart=/opt/aquipu/bin/\w+", f"ExecStart={program}", text, flags=re.M)
    )
    assert str(program) in copy.read_text()
    if shutil.which("systemd-analyze") is None:  # of another system: what follows still holds
        return
    command = ["systemd-analyze", "--man=no", "--recursive-errors=no", "verify", str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, name in done.stderr) == (0, False), done.stderr


def test_the_daemon_is_started_with_options_that_it_has() -> None:
    """And says when it is ready, has time to end, and is not started anew after damage."""
    settings = unit("aquipu-serve.service")
    (start,) = settings["ExecStart"]
    program, command, *arguments = shlex.split(start)
    assert (Path(program).name, command) == ("aquipu", "serve")
    assert run.__module__ == "aquipu.cli.main"  # which has loaded all commands
    serve: Any = typer.main.get_command(app)
    known = {name for one in serve.commands["serve"].params for name in one.opts}
    assert {one for one in arguments if one.startswith("--")} <= known
    assert settings["Type"] == ["notify"]
    assert int(settings["TimeoutStopSec"][0]) > 20
    assert settings["RestartPreventExitStatus"] == ["1 2"]


@pytest.mark.parametrize("name", ["aquipu-app.service", "Containerfile"])
def test_the_service_that_is_started_is_there(name: str) -> None:
    """It is the example with FastAPI, and is stopped sooner than it is killed."""
    from aquipu.examples.fastapi_service import app as service

    text = (DEPLOY / name).read_text()
    assert "aquipu.examples.fastapi_service:app" in text
    assert any(
        getattr(route, "path", "") == "/documents/{document}/history" for route in service.routes
    )
    (patience,) = re.findall(r"--timeout-graceful-shutdown\W+([0-9]+)", text)
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert int(patience) < int(compose["services"]["app"]["stop_grace_period"].removesuffix("s"))


# containers


def test_the_container() -> None:
    """It installs extras that there are, runs as no root, and has its store in a volume."""
    lines = (DEPLOY / "Containerfile").read_text().replace("\\\n", " ").splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    assert {step[0] for step in steps} <= {
        *("FROM", "WORKDIR", "COPY", "RUN", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "CMD")
    }
    said = dict(steps)
    extras = re.findall(r"\.\[([a-z,]+)\]", said["RUN"])[0].split(",")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras) <= set(project["optional-dependencies"])
    assert all((ROOT / name).exists() for name in ("pyproject.toml", "README.md", "aquipu"))
    assert said["USER"] not in ("root", "0")
    assert said["WORKDIR"] == said["VOLUME"] == "/data"
    assert json.loads(said["CMD"])[0] == "uvicorn"


def test_the_composition() -> None:
    """Its volume is where the service has its store, and what it builds is there."""
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    service = compose["services"]["app"]
    context = (DEPLOY / service["build"]["context"]).resolve()
    assert context == ROOT
    assert (context / service["build"]["dockerfile"]).resolve() == DEPLOY / "Containerfile"
    assert service["volumes"] == ["audit:/data"]
    assert set(compose["volumes"]) == {"audit"}
    assert service["healthcheck"]["test"][:2] == ["CMD", "python"]
    compile(service["healthcheck"]["test"][3], "healthcheck", "exec")


# Prometheus and Grafana


def test_rules_name_metrics_that_exist(metrics: set[str]) -> None:
    """Each has a summary and says how bad it is; promtool takes them, where it is there."""
    rules = yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"][0]["rules"]
    assert len({rule["alert"] for rule in rules}) == len(rules) >= 8
    assert named_in([rule["expr"] for rule in rules]) <= metrics
    for rule in rules:
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert rule["annotations"]["summary"]
    if shutil.which("promtool") is not None:
        command = ["promtool", "check", "rules", str(DEPLOY / "alerts.yaml")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_shows_metrics_that_exist(metrics: set[str]) -> None:
    """Its panels do not overlap, and use the variables that there are."""
    board = json.loads((DEPLOY / "dashboard.json").read_text())
    targets = [target for panel in board["panels"] for target in panel["targets"]]
    named = named_in([target["expr"] for target in targets])
    assert named <= metrics
    assert len(named) > 12
    variables = {one["name"] for one in board["templating"]["list"]} | {"__rate_interval"}
    used = re.findall(r"\$\{?([a-z_]+)\}?", json.dumps(board["panels"]))
    assert set(used) <= variables
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    covered = [
        (x, y)
        for panel in board["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(covered)) == len(covered)
    assert max(x for x, _ in covered) == 23


def test_the_readme_lists_the_files() -> None:
    """All that is there, and nothing else."""
    text = (DEPLOY / "README.md").read_text()
    listed = set(re.findall(r"`([\w.-]+)`", text.partition("## ")[0]))
    there = {path.name for path in DEPLOY.iterdir()} - {"README.md"}
    assert there == listed
