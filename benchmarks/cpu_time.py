"""The clock of ``make bench``: CPU time of this process and of the commands that it ran."""

import os


def seconds() -> float:
    """User and system time, children that have ended included."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
