"""`python -m drawjax.explore`: serves the glimpse explorer on the loopback interface."""

import argparse
import contextlib
import pathlib
import socket
import sys
import threading
import webbrowser
from collections.abc import Sequence
from typing import NoReturn

_HOST = "127.0.0.1"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = _Parser(
        prog="python -m drawjax.explore",
        description="Opens a local page: the attention window on an image, and a model that draws.",
    )
    parser.add_argument("--port", type=_port, default=0, help="(default: one that is free)")
    parser.add_argument(
        "--models", type=pathlib.Path, metavar="FOLDER",
        help="more models, as `python -m drawjax.pretrained` writes them",
    )  # fmt: skip
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    arguments = parser.parse_args(argv)
    try:
        import uvicorn

        from drawjax.explore.drawing import Models
        from drawjax.explore.server import app
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in ("starlette", "uvicorn"):
            raise
        return _fail(f"the explorer needs {error.name}: pip install 'drawjax[explore]'")
    if arguments.models is not None and not arguments.models.is_dir():
        return _fail(f"{arguments.models} is no folder")
    try:
        models = Models(arguments.models)
        models.describe()  # a damaged model ends here, not in the page
    except (ValueError, KeyError, OSError) as error:
        return _fail(f"a model cannot be read: {error}")
    try:
        listener = socket.create_server((_HOST, arguments.port))
    except OSError as error:
        return _fail(f"cannot listen on port {arguments.port}: {error.strerror}")
    with listener:
        address = f"http://{_HOST}:{listener.getsockname()[1]}/"
        print(f"The explorer is at {address} (Ctrl-C ends it)", flush=True)
        if not arguments.no_browser:
            # A text-mode browser would hold up the server that it waits for.
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        server = uvicorn.Server(
            uvicorn.Config(
                app(models), lifespan="off", ws="none", log_level="warning",
                timeout_graceful_shutdown=1,
            )
        )  # fmt: skip
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it once it has shut down
            server.run(sockets=[listener])
    return 0


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected a number up to 65535, got {text!r}")
    return int(text)


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
