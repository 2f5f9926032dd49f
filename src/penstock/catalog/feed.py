"""What nodes are told of the catalog. Pure."""


def format_grant(alias: str, organization_id: str, project_id: str | None) -> str:
    """Return the name of a grant in the change feed: it is told by whom it lets use what."""
    return "\n".join((alias, organization_id, project_id or ""))


def parse_grant(name: str) -> tuple[str, str, str | None]:
    """Return alias, organization and project of a name that `format_grant` made."""
    alias, organization_id, project_id = name.split("\n")
    return alias, organization_id, project_id or None
