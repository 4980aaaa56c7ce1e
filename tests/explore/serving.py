"""A tiny drawing model, and the explorer served from a thread."""

import contextlib
import pathlib
import socket
import threading
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import uvicorn

import drawjax
from drawjax import modules
from drawjax.explore.drawing import Models
from drawjax.explore.server import app

SHAPE = (28, 28, 1)
CONFIG = modules.DrawConfig(num_glimpses=4, hidden_size=8, latent_size=3, read_size=2, write_size=5)


def save_model(folder: pathlib.Path, name: str = "scribble", config=CONFIG, shape=SHAPE) -> None:
    """An untrained model with parameters large enough for its drawings to differ."""
    graph, params = modules.abstract(modules.Draw, config, shape)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape) * 0.5, p.dtype), params)
    model = modules.merge(graph, params)
    drawjax.save_pretrained(model, folder / name, provenance={"data": "nothing"})


@contextlib.contextmanager
def serving(models: Models) -> Iterator[str]:
    """The address of a running explorer."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(app(models), lifespan="off", ws="none", log_level="warning")
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
    server.should_exit = True
    thread.join()
    listener.close()
