"""Settings: flags of the server, headers of a request."""

import msgspec
import pytest

from penstock.emulator.flags import BadSettingError, list_flags, parse_arguments, settings_from
from penstock.emulator.overlay import BadHeaderError, overlay
from penstock.emulator.settings import Behavior, EmulatorSettings


def test_every_setting_is_a_flag_that_says_what_it_does() -> None:
    """Each field of the settings is a flag of a plain type, with a text and the field's default."""
    flags = {flag.field: flag for flag in list_flags()}
    assert set(flags) == set(EmulatorSettings.__struct_fields__)
    for flag in flags.values():
        assert flag.option == "--" + flag.field.replace("_", "-")
        assert flag.kind in (bool, int, float, str)
        assert flag.text.endswith(".")
        assert flag.default == getattr(EmulatorSettings(), flag.field)


def test_flags_without_arguments_are_the_defaults() -> None:
    """An empty command line gives the defaults."""
    assert parse_arguments([]) == EmulatorSettings()


def test_flags_are_parsed() -> None:
    """Numbers, choices and booleans of a command line reach the settings."""
    arguments = [
        "--port",
        "0",
        "--itl-ms",
        "2.5",
        "--fault",
        "slow",
        "--record",
        "--no-keep-alive-announced",
    ]
    settings = parse_arguments(arguments)
    assert (settings.port, settings.itl_ms, settings.fault) == (0, 2.5, "slow")
    assert settings.record
    assert not settings.keep_alive_announced


@pytest.mark.parametrize(
    "arguments",
    [["--port", "65536"], ["--ttft-ms", "-1"], ["--ttft-ms", "nan"], ["--fault", "fire"], ["-x"]],
)
def test_bad_flags_end_with_status_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A flag that is unknown or out of its range is named on standard error."""
    with pytest.raises(SystemExit) as ended:
        parse_arguments(arguments)
    assert ended.value.code == 2
    assert arguments[0].strip("-").replace("-", "_") in capsys.readouterr().err.replace("-", "_")


def test_unknown_settings_are_refused() -> None:
    """A setting that does not exist is an error that names it."""
    with pytest.raises(BadSettingError, match="speed"):
        settings_from({"speed": 3})


def test_every_field_of_the_behavior_is_a_header() -> None:
    """Each field can be set by a request, and changes nothing else."""
    values: dict[str, object] = {
        "usage": "never",
        "fault": "stall",
        "hangup": "reset",
        "kind": "vllm",
    }
    for field in Behavior.__struct_fields__:
        value = values.get(field, 250)
        name = b"x-emulator-" + field.replace("_", "-").encode()
        changed = overlay(EmulatorSettings(), ((name, str(value).encode()),))
        assert changed == msgspec.structs.replace(Behavior(), **{field: value})


def test_headers_are_laid_over_the_servers_behavior() -> None:
    """What a header does not say stays as the server's flags say."""
    settings = EmulatorSettings(ttft_ms=5, fault="stall")
    changed = overlay(settings, ((b"x-emulator-fault-after", b"3"),))
    assert (changed.ttft_ms, changed.fault, changed.fault_after) == (5, "stall", 3)
    assert overlay(settings, ()) is settings


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        (((b"x-emulator-speed", b"3"),), "x-emulator-speed"),
        (((b"x-emulator-port", b"3"),), "x-emulator-port"),
        (((b"x-emulator-itl-ms", b"fast"),), "x-emulator-itl-ms"),
        (((b"x-emulator-itl-ms", b"-1"),), "x-emulator-itl-ms"),
        (((b"x-emulator-itl-ms", b"nan"),), "x-emulator-itl-ms"),
        (((b"x-emulator-itl-ms", b"\xff"),), "x-emulator-itl-ms"),
        (((b"x-emulator-output-tokens", b"2.5"),), "x-emulator-output-tokens"),
        (((b"x-emulator-status", b"100"),), "x-emulator-status"),
        (((b"x-emulator-fault", b""),), "x-emulator-fault"),
        (((b"x-emulator-usage", b"never"), (b"x-emulator-usage", b"never")), "given twice"),
    ],
)
def test_bad_headers_are_named(headers: tuple[tuple[bytes, bytes], ...], named: str) -> None:
    """A header that is unknown, out of its range or given twice is an error that names it."""
    with pytest.raises(BadHeaderError, match=named):
        overlay(EmulatorSettings(), headers)


def test_models_are_named_with_commas() -> None:
    """`a, b` serves a and b alone; `*` serves every name and lists none."""
    two = EmulatorSettings(models="a, b")
    assert two.model_names() == ("a", "b")
    assert two.serves("b")
    assert not two.serves("c")
    every = EmulatorSettings(models="*")
    assert every.serves("c")
    assert every.model_names() == ()
