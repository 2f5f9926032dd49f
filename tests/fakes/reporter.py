"""What `penstock dev` says, kept for tests."""


class RecordingReporter:
    """Keeps what it is told."""

    def __init__(self) -> None:
        """Start with nothing said."""
        self.lines: list[str] = []
        self.warnings: list[str] = []

    def progress(self, text: str) -> None:
        """Keep a line."""
        self.lines.append(text)

    def warn(self, text: str) -> None:
        """Keep a warning."""
        self.warnings.append(text)

    def ready(self, facts: object) -> None:
        """Keep that it is ready."""
        self.lines.append(f"ready {facts}")
