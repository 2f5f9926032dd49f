"""Changes what a running process logs, when its operator asks at the debug door."""

from collections.abc import Callable

from penstock.kit.debug_door import Parameters, Routes
from penstock.kit.inspection import Found, InspectionError
from penstock.kit.logs.setup import LEVELS, LevelName, change_level, get_level

PATH = "/log-level"


def level_routes(tell: Callable[[LevelName], None]) -> Routes:
    """Return `GET` and `PUT /log-level`.

    Args:
        tell: Told of a new level, behind the change.
    """

    async def show(_parameters: Parameters) -> Found:
        return {"level": get_level()}

    async def change(parameters: Parameters) -> Found:
        level = next((each for each in LEVELS if each == parameters.get("level")), None)
        if level is None:
            message = f"`level` is one of {', '.join(LEVELS)}"
            raise InspectionError(message)
        change_level(level)
        tell(level)
        return {"level": level}

    return {("GET", PATH): show, ("PUT", PATH): change}
