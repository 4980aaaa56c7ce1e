"""The glimpse explorer's server: the files of page/ and a few addresses that compute.

It keeps nothing: the page sends the pixels along with every request.

```
GET  /about            limits, built-in images, models
GET  /image/NAME       a built-in image            -> {height, width, channels, pixels (base64)}
GET  /digit/INDEX      a digit                     -> the same
POST /image            an image file               -> the same, with note; or {refused: why}
POST /glimpse?...      uint8 pixels                -> float32, see `glimpse`
POST /draw?...         nothing                     -> {frames (base64), shape, write, read}
POST /complete?...     uint8 pixels, uint8 known   -> the same
```

Meant for the loopback interface. Other Host headers are refused, so that no web page can reach it
through a name of its own that points here (DNS rebinding), and so are requests that come from
other pages.
"""

import base64
import functools
import pathlib
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from drawjax.explore import images
from drawjax.explore.drawing import Drawing, Models
from drawjax.explore.glimpse import MAX_PATCH, glimpse
from drawjax.files import to_json
from drawjax.pictures import open_picture

_PAGE = pathlib.Path(__file__).parent / "page"
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data:; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def app(models: Models) -> Starlette:
    """The application."""
    facts = {
        "maxBytes": images.MAX_BYTES,
        "maxPatch": MAX_PATCH,
        "builtIn": images.BUILT_IN,
        "models": models.describe(),
    }

    def draw(request: Request) -> Response:
        return _drawing(models.from_seed(**_asked(request)))

    async def complete(request: Request) -> Response:
        asked = _asked(request)
        model = await run_in_threadpool(models.load, asked["name"])
        height, width, channels = model.image_shape
        content = np.frombuffer(await _body(request), np.uint8)
        pixels = content[: height * width * channels].reshape(height, width, channels)
        known = content[height * width * channels :].reshape(height, width) > 0
        run = functools.partial(models.complete, pixels=pixels, known=known, **asked)
        return _drawing(await run_in_threadpool(run))

    return Starlette(
        routes=[
            Route("/about", lambda request: JSONResponse(facts)),
            Route("/image/{name}", lambda asked: _image(images.built_in(**asked.path_params))),
            Route("/digit/{index:int}", lambda asked: _image(images.digit(**asked.path_params))),
            Route("/image", _upload, methods=["POST"]),
            Route("/glimpse", _glimpse, methods=["POST"]),
            Route("/draw", draw, methods=["POST"]),
            Route("/complete", complete, methods=["POST"]),
            Mount("/", StaticFiles(directory=_PAGE, html=True)),
        ],
        middleware=[
            Middleware(BaseHTTPMiddleware, dispatch=_guard),
            Middleware(
                TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "localhost"], www_redirect=False
            ),
        ],
        exception_handlers={
            ValueError: lambda request, error: JSONResponse({"error": str(error)}, 400),
            ClientDisconnect: lambda request, error: Response(),  # that nobody reads
        },
    )


async def _upload(request: Request) -> Response:
    content = await _body(request)
    try:
        picture = await run_in_threadpool(open_picture, content)
    except ValueError as error:
        # An answer like any other: browsers log a 4xx on the console as if the page had failed.
        return JSONResponse({"refused": f"The file cannot be read: {error}."})
    pixels, note = await run_in_threadpool(images.shrunk, picture), ""
    width, height = picture.size
    if pixels.shape[:2] != (height, width):
        note = (
            f"Scaled down from {width} x {height} to {pixels.shape[1]} x {pixels.shape[0]} pixels."
        )
    return _image(pixels, note=note)


async def _glimpse(request: Request) -> Response:
    """The numbers of `glimpse`, as little-endian float32."""
    query = request.query_params
    shape = tuple(int(query.get(name, "0")) for name in ("height", "width", "channels"))
    logits = [float(value) for value in query.get("logits", "").split(",")]
    patch_size = int(query.get("patch", "0"))
    pixels = np.frombuffer(await _body(request), np.uint8).reshape(shape)
    seen = await run_in_threadpool(glimpse, pixels, logits, patch_size)
    return Response(np.asarray(seen, "<f4").tobytes(), media_type="application/octet-stream")


def _asked(request: Request) -> dict[str, Any]:
    query = request.query_params
    label = int(query["label"]) if "label" in query else None
    seed = int(query.get("seed", ""))
    if not 0 <= seed < 2**31:
        raise ValueError(f"the seed must be from 0 to {2**31 - 1}, got {seed}")
    return {"name": query.get("model", ""), "seed": seed, "label": label}


def _image(pixels: images.Pixels, **more: str) -> Response:
    shape = dict(zip(("height", "width", "channels"), pixels.shape, strict=True))
    return JSONResponse({**shape, "pixels": _base64(pixels), **more})


def _drawing(drawing: Drawing) -> Response:
    answer = {
        "shape": drawing.frames.shape,
        "frames": _base64(drawing.frames),
        "write": drawing.write,  # null in it where a window is not finite
        "read": drawing.read,
    }
    return Response(to_json(answer), media_type="application/json")


def _base64(pixels: np.ndarray) -> str:
    return base64.b64encode(pixels.tobytes()).decode()


async def _body(request: Request) -> bytes:
    """What the request sends; nothing beyond the limit is kept in memory."""
    content = bytearray()
    async for chunk in request.stream():
        content += chunk
        if len(content) > images.MAX_BYTES:
            raise HTTPException(413, f"At most {images.MAX_BYTES / 1e6:g} MB are taken.")
    return bytes(content)


async def _guard(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    """Refuses what other pages send, and puts `_HEADERS` on every answer."""
    if request.headers.get("origin") in (None, f"http://{request.headers.get('host', '')}"):
        response = await call_next(request)
    else:
        response = JSONResponse({"error": "requests from other pages are refused"}, 403)
    response.headers.update(_HEADERS)
    return response
