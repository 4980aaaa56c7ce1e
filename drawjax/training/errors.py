"""The ways in which a run ends early, each with a message of one line for the user."""

import signal


class RunError(RuntimeError):
    """A run cannot be started, continued or saved as asked; the message is for the user."""

    exit_code = 1


class Diverged(RuntimeError):
    """Too many steps in a row had no finite loss and gradient."""

    exit_code = 3


class Interrupted(Exception):
    """A signal asked the run to stop; its state is saved."""

    def __init__(self, signum: int):
        super().__init__(
            f"stopped by {signal.Signals(signum).name}; the run is saved, the same command goes on"
        )
        self.signum = signum
        self.exit_code = 128 + signum
