"""Imports: what the worker really loads (lint-imports holds what the source says)."""

import json
import subprocess
import sys

FORBIDDEN = {
    "aiosqlite",
    "alembic",
    "fastapi",
    "httpx",
    "prometheus_client",
    "pydantic",
    "rich",
    "sqlalchemy",
    "starlette",
    "typer",
    "uvicorn",
    "yaml",
}

LIST_MODULES = "import json, sys, penstock.gateway.worker; print(json.dumps(list(sys.modules)))"


def test_the_worker_loads_no_framework() -> None:
    """A worker's process holds no database, web framework or other heavy library."""
    done = subprocess.run(
        [sys.executable, "-c", LIST_MODULES], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    modules = json.loads(done.stdout)
    loaded = {name.partition(".")[0] for name in modules}
    assert loaded & FORBIDDEN == set()
    rooms = {name.split(".")[1] for name in modules if name.startswith("penstock.")}
    assert rooms & {"storage", "control", "node", "cli"} == set()
