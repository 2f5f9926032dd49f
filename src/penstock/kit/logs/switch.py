"""Changes what a running process logs, when its operator asks at the debug door."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from penstock.kit.debug_door import Parameters, Routes
from penstock.kit.inspection import Found, InspectionError
from penstock.kit.logs.setup import LEVELS, LevelName, change_level, get_level

PATH = "/log-level"


@dataclass(frozen=True, slots=True)
class LevelChange:
    """What somebody changed, who is a user of this machine."""

    before: LevelName
    now: LevelName
    user: int
    """Their number."""


def level_routes(tell: Callable[[LevelChange], Awaitable[None]]) -> Routes:
    """Return `GET` and `PUT /log-level`.

    Args:
        tell: Told of a change, behind it.
    """

    async def show(_parameters: Parameters, _user: int) -> Found:
        return {"level": get_level()}

    async def change(parameters: Parameters, user: int) -> Found:
        level = next((each for each in LEVELS if each == parameters.get("level")), None)
        if level is None:
            message = f"`level` is one of {', '.join(LEVELS)}"
            raise InspectionError(message)
        done = LevelChange(get_level(), level, user)
        change_level(level, user=user)
        await tell(done)
        return {"level": level}

    return {("GET", PATH): show, ("PUT", PATH): change}
