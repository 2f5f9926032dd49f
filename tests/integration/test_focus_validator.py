"""What the FOCUS project's own validator finds in our export."""

import re
import subprocess
import sys
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path

from tests.fakes.databases import sqlite_database
from tests.fakes.engine_wheels import engine_python
from tests.fakes.rated_usage import ALL, RatedUsage
from tests.integration.test_focus_export import FIRST, MARCH_US, MODELS, MONTH_US, RATES
from tests.unit.metering.usage_events import make_event

from penstock.rating.exports.focus_rules import COLUMNS
from penstock.rating.exports.formats import CsvEncoder, write
from penstock.rating.exports.pages import list_focus_pages
from penstock.storage.database import Database
from penstock.storage.sessions import ReadSession

SOURCES = ["focus-validator==2.2.1", "pandasql==0.7.3"]
ITS_LIBRARIES = [
    "ddt>=1.7.1,<2",
    "duckdb>=1.4.1,<2",
    "graphviz>=0.21,<0.22",
    "jsonschema>=4.25.1,<5",
    "multimethod>=1.10,<2",  # what it names itself cannot be installed together
    "numpy>=1.26,<2",
    "pandas>=2,<3",
    "pandera>=0.26.1,<0.27",
    "polars>=1.34,<2",
    "pyarrow>=18,<20",
    "pydantic>=2.12,<3",
    "pytz>=2025.2",
    "pyyaml>=6.0.3,<7",
    "requests",
    "sqlalchemy>=2,<3",
    "sqlglot>=27.28.1,<28",
    "tabulate",
]
WHAT_WE_ARE = (
    "ACCOUNT_NAMING_SUPPORTED",
    "NEGOTIATED_PRICING_SUPPORTED",
    "REGION_SUPPORTED",
    "SUB_ACCOUNT_SUPPORTED",
    "UNIT_PRICING_SUPPORTED",
    "USAGE_MEASUREMENT_SUPPORTED",
)
"""Which of the specification's conditional rules are for us."""
ONE_OF_TWO = {"InvoiceId-C-005-C"}
"""An invoice's id must not be null where there is an invoice, and must be null (C-004) where there
is none. The validator tries both on all rows, and is content with one of them: so are we."""
_NEWER_SYNTAX = """", ".join(f"'{k.replace('\\"', '\\"\\"')}'" for k in ignore_keys)"""
_SAME_FOR_OLDER = """", ".join("'" + k.replace('"', '""') + "'" for k in ignore_keys)"""


async def test_the_validator_of_focus_finds_nothing(sqlite_template: Path, tmp_path: Path) -> None:
    """Each rule of FOCUS 1.2 that is for us holds for a month with every kind of price."""
    python = engine_python("focus", ITS_LIBRARIES, sources=SOURCES)
    (folder,) = python.parents[1].glob("lib/*/site-packages")
    _have_read(folder)
    export = tmp_path / "focus.csv"
    async with sqlite_database(sqlite_template, tmp_path) as database:
        export.write_bytes(await _export(database))
    command: list[str | Path] = [python, "-m", "focus_validator.main", "--data-file", export]
    command += ["--validate-version", "1.2.0.1", "--focus-dataset", "CostAndUsage"]
    command += ["--applicability-criteria", ",".join(WHAT_WE_ARE), "--block-download"]
    said = subprocess.run(  # noqa: ASYNC221 - nothing else runs
        [*command, "--show-violations"], capture_output=True, text=True, check=False, cwd=folder
    ).stdout
    assert set(re.findall(r"❌ ([\w-]+):", said)) == ONE_OF_TWO, said
    assert said.count(": PASS") > 200


async def _export(database: Database) -> bytes:
    """Return a month of two organizations with flat, stepped and package prices, as CSV."""
    usage = RatedUsage(database)
    await usage.set_price("fast", unit=7)
    for model, rates in RATES.items():
        await usage.set_price(model, rates=rates)
    await usage.add(
        [
            make_event(
                9_000_000 + number,
                started_at_ns=int((FIRST + timedelta(hours=number * 11)).timestamp()) * 10**9,
                organization=("acme", "beta")[number % 2],
                project=("search", "")[number % 3 == 0],
                model=MODELS[number % 4],
                region=("", "de")[number % 2],
                input_tokens=number * 1_001,
                output_tokens=number * 77,
                image_count=number % 3,
            )
            for number in range(60)
        ]
    )

    def read() -> AbstractAsyncContextManager[ReadSession]:
        return database.read(ALL)

    pages = list_focus_pages(read, MONTH_US, MARCH_US, {}, "Example Cloud")
    return b"".join([piece async for piece in write(CsvEncoder(COLUMNS), pages, 100)])


def _have_read(folder: Path) -> None:
    """Write one line of the validator so that Pythons before 3.12 can read it."""
    if sys.version_info < (3, 12):
        module = folder / "focus_validator" / "config_objects" / "focus_to_duckdb_converter.py"
        text = module.read_text("utf-8")
        module.write_text(text.replace(_NEWER_SYNTAX, _SAME_FOR_OLDER), "utf-8")
