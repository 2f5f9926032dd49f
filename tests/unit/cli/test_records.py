"""Asking before damage."""

import io

import pytest
import typer

from penstock.cli.errors import CommandError
from penstock.cli.records import confirm


class Terminal(io.StringIO):
    """Somebody who types an answer."""

    def isatty(self) -> bool:
        """Say yes."""
        return True


@pytest.mark.parametrize("answer", ["y\n", "YES\n", " yes \n"])
def test_a_yes_is_a_yes(answer: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Who answers yes is let on, and the question is on stderr alone."""
    confirm("It stops.", is_confirmed=False, terminal=Terminal(answer))
    said = capsys.readouterr()
    assert said.out == ""
    assert "It stops. Go on? [y/N]" in said.err


@pytest.mark.parametrize("answer", ["\n", "", "n\n", "yep\n", "no\n"])
def test_everything_else_is_a_no(answer: str) -> None:
    """Whatever else is typed ends the command with exit code 1."""
    with pytest.raises(typer.Exit) as caught:
        confirm("It stops.", is_confirmed=False, terminal=Terminal(answer))
    assert caught.value.exit_code == 1


def test_without_a_terminal_nobody_is_asked() -> None:
    """Without a terminal the answer that is waiting on stdin is not taken for one."""
    with pytest.raises(CommandError, match="nothing was changed: It stops") as caught:
        confirm("It stops.", is_confirmed=False, terminal=io.StringIO("y\n"))
    assert caught.value.exit_code == 2


def test_yes_asks_nobody() -> None:
    """With --yes nothing is read."""
    terminal = Terminal("n\n")
    confirm("It stops.", is_confirmed=True, terminal=terminal)
    assert terminal.tell() == 0
