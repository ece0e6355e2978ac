# SPDX-License-Identifier: MIT
"""How a command ends: exit statuses and the one exception that carries a message for the user."""

OK = 0
FAILED = 1
USAGE = 2
TIMEOUT = 124


class Failure(Exception):
    """A command cannot go on; the message is for the user, STATUS is what ./cairn exits with."""

    def __init__(self, message: str, status: int = FAILED):
        super().__init__(message)
        self.status = status


def usage(message: str) -> Failure:
    """Wrong arguments, a wrong config, or something missing that the user has to bring."""
    return Failure(message, USAGE)


class ConfigError(Failure):
    """A config that is wrong; the message already begins with its file and line."""

    def __init__(self, message: str):
        super().__init__(message, USAGE)
