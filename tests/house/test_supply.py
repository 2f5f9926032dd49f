"""Supply chain: what is installed is what the lock says, and the lock says nothing known bad."""

import tomllib
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from packaging.version import Version
from tests.house.sources import ROOT, expect_none

AT_LEAST = {
    "anyio": ("4.4", "a race in its event loop handling could crash a server"),
    "certifi": ("2024.7.4", "CVE-2024-39689: trusted a withdrawn root"),
    "cryptography": ("44.0.1", "CVE-2024-12797 in the OpenSSL that it carries"),
    "fonttools": ("4.60.2", "CVE-2025-66034: writes files where a font says"),
    "h11": ("0.16", "CVE-2025-43859: accepted broken chunked bodies"),
    "h2": ("4.3", "CVE-2025-57804: let a field split a request"),
    "httpx": ("0.23", "CVE-2021-41945: confused malformed URLs"),
    "idna": ("3.7", "CVE-2024-3651: quadratic time on long names"),
    "jinja2": ("3.1.6", "CVE-2025-27516: left its sandbox"),
    "mako": ("1.2.2", "CVE-2022-40023: quadratic regular expression"),
    "pillow": ("10.3", "CVE-2024-28219: buffer overflow"),
    "pygments": ("2.15.1", "CVE-2022-40896: quadratic regular expression"),
    "python-multipart": ("0.0.18", "CVE-2024-53981: endless work on a broken body"),
    "requests": ("2.32.4", "CVE-2024-47081: sent netrc passwords to the wrong host"),
    "setuptools": ("78.1.1", "CVE-2025-47273: wrote outside its folder"),
    "starlette": ("0.49.1", "CVE-2025-62727: quadratic time on Range headers"),
    "urllib3": ("2.6", "CVE-2025-66471: unbounded work on compressed answers"),
    "uv": ("0.9.5", "CVE-2025-62518: read another archive than the index checked"),
}
"""Known bad below this version; packages that the lock does not have are held for later."""

NEVER = {
    "litellm": "releases of it were stolen and carried a .pth that sent secrets away",
    "pycrypto": "abandoned; use cryptography",
    "python-jose": "abandoned, with open holes; use joserfc",
}

PTH_ALLOWED = {
    "_editable_impl_penstock.pth": "ours: the editable install points at src",
    "distutils-precedence.pth": "setuptools, which python3.11 -m venv brings along",
    "_virtualenv.pth": "virtualenv, where it made the environment instead of venv",
}


def _packages() -> list[dict[str, Any]]:
    with (ROOT / "uv.lock").open("rb") as file:
        packages: list[dict[str, Any]] = tomllib.load(file)["package"]
    return packages


def test_the_lock_holds_nothing_known_bad() -> None:
    """No locked package is below the version that closed its known holes, and none is banned."""
    bad = [
        f"{package['name']} {package['version']}: {AT_LEAST[package['name']]}"
        for package in _packages()
        if package["name"] in AT_LEAST
        and Version(package["version"]) < Version(AT_LEAST[package["name"]][0])
    ]
    bad += [f"{name}: {NEVER[name]}" for name in (p["name"] for p in _packages()) if name in NEVER]
    expect_none(bad)


def test_the_lock_pins_every_file() -> None:
    """Every locked package comes from an index, and each of its files has a SHA-256."""
    loose = []
    for package in _packages():
        if package["source"] == {"editable": "."}:
            continue
        files = [*package.get("wheels", []), *filter(None, [package.get("sdist")])]
        if "registry" not in package["source"] or not files:
            loose.append(package["name"])
        loose += [file["url"] for file in files if not file["hash"].startswith("sha256:")]
    expect_none(loose)


def test_no_package_runs_code_at_start() -> None:
    """No installed package has a `.pth`, which Python would run in every process."""
    found = {
        file.name
        for package in distributions()
        for file in package.files or ()
        if file.suffix == ".pth"
    }
    (site_packages,) = {Path(str(d.locate_file(""))) for d in distributions(name="pytest")}
    found |= {path.name for path in site_packages.glob("*.pth")}
    assert found - PTH_ALLOWED.keys() == set()


def test_no_package_customizes_the_interpreter() -> None:
    """No installed package brings a `sitecustomize` or `usercustomize`."""
    found = [
        f"{package.name}: {file}"
        for package in distributions()
        for file in package.files or ()
        if file.name in {"sitecustomize.py", "usercustomize.py"} and len(file.parts) == 1
    ]
    expect_none(found)
