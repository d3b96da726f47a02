"""The stock SDK's client, pointed at the same sandbox service."""

from __future__ import annotations

import asyncio
import subprocess
from typing import Self

from agentcube.clients.code_interpreter_data_plane import CodeInterpreterDataPlaneClient
from agentcube.exceptions import CommandExecutionError

from agentcube_kernel.client.code_interpreter import AsyncCodeInterpreterClient
from agentcube_kernel.config import Settings
from tests.endpoints import Endpoint


class StockCodeInterpreter:
    """A session for the stock SDK's data-plane client; it is deleted when the context ends."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._settings = Settings.load(endpoint.env)
        self._session_id = ""

    def __enter__(self) -> Self:
        if self._endpoint.kind != "picod":
            self._session_id = asyncio.run(self._create())
        settings = self._settings
        base = f"{settings.picod_url}/"
        if settings.picod_url is None:
            names = f"namespaces/{settings.namespace}/code-interpreters/{settings.interpreter}"
            base = f"{settings.router_url}/v1/{names}/invocations/"
        self._client = CodeInterpreterDataPlaneClient(self._session_id, base_url=base)
        if token := settings.credentials.token:
            self._client.session.headers["Authorization"] = f"Bearer {token}"
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._client.session.close()
        if self._session_id:
            asyncio.run(self._delete())

    def run_code(self, language: str, code: str) -> str:
        """Run a script; nothing of it is left for the next one but files."""
        output: str = self._client.run_code(language, code)
        return output

    def has(self, module: str) -> bool:
        """Whether the sandbox's python3 can import a module."""
        try:
            self.run_code("python", f"import {module}")
        except (CommandExecutionError, subprocess.SubprocessError):
            return False
        return True

    async def _create(self) -> str:
        client = AsyncCodeInterpreterClient(settings=self._settings)
        await client.open()
        session_id = client.detach()
        await client.close()
        return session_id

    async def _delete(self) -> None:
        client = AsyncCodeInterpreterClient(settings=self._settings, session_id=self._session_id)
        await client.stop(force=True)
