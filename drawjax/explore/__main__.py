"""`python -m drawjax.explore`: serves the glimpse explorer on the loopback interface."""

import contextlib
import dataclasses
import importlib.util
import pathlib
import socket
import threading
import webbrowser

from drawjax import cli
from drawjax.config import Checked, option

_HOST = "127.0.0.1"


@dataclasses.dataclass(frozen=True)
class ExploreConfig(Checked):
    """What is served, and where."""

    _prefix = "--"

    port: int = option(0, low=0, high=65535)
    """Of the page; 0: one that is free."""
    models: pathlib.Path | None = option(None, path=True)
    """Folder of more models, each a folder as `drawjax.save_pretrained` writes it."""
    browser: bool = True
    """Open the page."""


DESCRIPTION = "Opens a local page: the attention window on an image, and a model that draws."


def explore(config: ExploreConfig) -> None:
    """Serves the page until Ctrl-C."""
    for package in ("starlette", "uvicorn"):
        if importlib.util.find_spec(package) is None:
            message = f"the explorer needs {package}: pip install 'drawjax[explore]'"
            raise ModuleNotFoundError(message)
    import uvicorn

    from drawjax.explore.drawing import Models
    from drawjax.explore.server import app

    if config.models is not None and not config.models.is_dir():
        raise NotADirectoryError(f"{config.models} is not a folder")
    models = Models(config.models)
    page = app(models)  # a damaged model ends here, not in the page
    for name, why in models.left_out.items():
        print(f"{name} is left out: {why}")
    listener = socket.create_server((_HOST, config.port))
    with listener:
        address = f"http://{_HOST}:{listener.getsockname()[1]}/"
        print(f"The explorer is at {address} (Ctrl-C ends it)", flush=True)
        if config.browser:
            # A text-mode browser would hold up the server that it waits for.
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
        server = uvicorn.Server(
            uvicorn.Config(
                page, lifespan="off", ws="none", log_level="warning",
                timeout_graceful_shutdown=1,
            )
        )  # fmt: skip
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it once it has shut down
            server.run(sockets=[listener])


if __name__ == "__main__":
    cli.command(explore, ExploreConfig(), description=DESCRIPTION)
