"""The baseline of a callback: a bare Starlette route that answers 204, under uvicorn as anybody would start it."""

import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


async def callback(_request: Request) -> Response:
    return Response(status_code=204)


def main() -> None:
    """Serve on loopback, on the port that is the argument."""
    app = Starlette(routes=[Route("/callback", callback)])
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
