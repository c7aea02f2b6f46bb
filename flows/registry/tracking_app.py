"""MLflow's own server without its Assistant, which runs shell commands for whoever reaches the page.

MLflow lets the Assistant work for everybody at this machine, and takes those for such who come through a
tunnel or a reverse proxy. Nothing here needs it. `mlflow server --app-name cvdm` runs this, by an entry point
of MLflow's group `mlflow.app`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi.responses import JSONResponse
from mlflow.server.fastapi_app import app as mlflow_app

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

ASSISTANT = "/ajax-api/3.0/mlflow/assistant"
"""Where all of its requests begin."""


class WithoutAssistant:
    """An ASGI application that answers 403 to the Assistant's requests and hands on every other."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["path"].startswith(ASSISTANT):
            refusal = JSONResponse({"detail": "The Assistant is off on this server."}, 403)
            await refusal(scope, receive, send)
        else:
            await self._app(scope, receive, send)


app = WithoutAssistant(mlflow_app)
