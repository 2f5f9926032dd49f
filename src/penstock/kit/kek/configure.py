"""From a setting to the keepers of KEKs: `file:PATH`, `vault:MOUNT/KEY`, `aws:KEY`.

Several, with commas between them, are a ring: the first one wraps, all of them unwrap. So data
keys move from one keeper to another without a moment in which one of them does not open.
"""

from collections.abc import Mapping
from pathlib import Path

from penstock.kit.kek.aws import connect_aws_kms
from penstock.kit.kek.file import FileKek
from penstock.kit.kek.model import Kek, KekRing
from penstock.kit.kek.vault import connect_vault

FORMS = "file:PATH, vault:MOUNT/KEY or aws:KEY-ID-OR-ARN"


class KekSettingError(ValueError):
    """The setting names no keeper; the message says what to write."""


def list_key_files(setting: str | None, default: Path) -> list[Path]:
    """Return the key files that a setting names, the one that wraps first if it is a file.

    Args:
        setting: As for `configure_kek`.
        default: As for `configure_kek`.
    """
    parts = _split(setting, default)
    return [Path(name) for keeper, name in parts if keeper == "file"]


def configure_kek(setting: str | None, default: Path, environment: Mapping[str, str]) -> Kek:
    """Return the keepers that a setting names; none of them is asked anything yet.

    Args:
        setting: One of the forms, or several with commas between them.
        default: The key file when there is no setting.
        environment: Has `VAULT_ADDR` and `VAULT_TOKEN` for Vault; AWS reads its own.

    Raises:
        KekSettingError: It is none of the forms, or the environment lacks something.
        KekUnavailableError: A package is missing.
    """
    first, *former = (_connect(*part, environment) for part in _split(setting, default))
    return KekRing(first, *former) if former else first


def _split(setting: str | None, default: Path) -> list[tuple[str, str]]:
    if setting is None:
        return [("file", str(default))]
    parts = []
    for text in setting.split(","):
        keeper, _, name = text.strip().partition(":")
        if keeper not in {"file", "vault", "aws"} or not name:
            # Only the scheme is repeated: what follows may be a secret put here by mistake.
            message = f"kek: a part begins with {keeper[:10]!r}; write {FORMS}"
            raise KekSettingError(message)
        parts.append((keeper, name))
    return parts


def _connect(keeper: str, name: str, environment: Mapping[str, str]) -> Kek:
    if keeper == "file":
        return FileKek(Path(name))
    if keeper == "aws":
        return connect_aws_kms(name)
    mount, _, key = name.rpartition("/")
    if not mount or not key:
        message = "kek: write vault:MOUNT/KEY, e.g. vault:transit/penstock"
        raise KekSettingError(message)
    missing = [name for name in ("VAULT_ADDR", "VAULT_TOKEN") if not environment.get(name)]
    if missing:
        message = f"kek: Vault needs {' and '.join(missing)} in the environment"
        raise KekSettingError(message)
    return connect_vault(
        environment["VAULT_ADDR"], token=environment["VAULT_TOKEN"], key=key, mount=mount
    )
