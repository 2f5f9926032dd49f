"""What `penstock dev` was asked for, checked for sense."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from penstock.cli.errors import BAD_OPTION, CommandError
from penstock.kit.logs.setup import Form, LevelName
from penstock.node.settings import LabelName


@dataclass(frozen=True, slots=True, kw_only=True)
class DevOptions:
    """The options of `penstock dev`.

    Raises:
        CommandError: Two of them exclude each other, or one cannot be.
    """

    data: Path
    """Absolute."""
    gateway_port: int
    """Any free one when 0, as the others; with it built-in engines take any free ones, too."""
    control_port: int
    metrics_port: int
    grpc_port: int | None = None
    """No gRPC when None."""
    workers: int
    engines: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    api_key: str | None = None
    config: Path | None = None
    is_journal_strict: bool = False
    labels: tuple[str, ...] = ()
    """Names that requests may use; the usual ones when empty."""
    metadata_labels: tuple[str, ...] = ()
    """Members of their metadata that are labels, too."""
    log_format: Form = "text"
    log_level: LevelName = "info"

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.config is not None and (self.engines or self.models):
            detail = "--config says itself what is served, so --engine and --model do not apply."
            raise CommandError(BAD_OPTION, detail, "Leave out one or the other.")
        for option, names in (
            ("--label", self.labels),
            ("--metadata-label", self.metadata_labels),
        ):
            for name in names:
                _check_label(option, name)


def _check_label(option: str, name: str) -> None:
    try:
        msgspec.convert(name, LabelName)
    except msgspec.ValidationError:
        detail = f"{option} {name!r} cannot be the name of a label."
        remedy = "Use up to 32 of a-z, 0-9, `_`, `.` and `-`, a letter first."
        raise CommandError(BAD_OPTION, detail, remedy) from None
