"""The stock agentcube-sdk runs against the embedded gateway unchanged."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from .conftest import Server

try:
    SDK = version("agentcube-sdk")
except PackageNotFoundError:
    SDK = ""

pytestmark = pytest.mark.skipif(SDK != "0.1.0", reason="needs agentcube-sdk 0.1.0")

CODE_INTERPRETER = """
import os
from agentcube import CodeInterpreterClient
from agentcube.exceptions import CommandExecutionError

with CodeInterpreterClient(auth_token=os.environ["AGENTCUBE_TOKEN"]) as client:
    assert client.run_code("python", "print('a' * 3, 1 + 1)") == "aaa 2\\n"
    assert client.run_code("bash", "echo $((6 * 7))") == "42\\n"
    client.write_file("content\\n", "folder/file.txt")
    assert client.execute_command("cat folder/file.txt") == "content\\n"
    client.upload_file(__file__, "script.py")
    client.download_file("script.py", "back.py")
    assert open("back.py").read() == open(__file__).read()
    names = [entry["name"] for entry in client.list_files(".")]
    assert {"folder", "script.py"} <= set(names), names
    try:
        client.run_code("python", "import sys; sys.exit('no')")
    except CommandExecutionError as error:
        assert error.exit_code == 1 and error.stderr == "no\\n"
    else:
        raise AssertionError("no error")
    try:
        client.execute_command("sleep 5", timeout=1)
    except CommandExecutionError as error:
        assert error.exit_code == 124
    else:
        raise AssertionError("no error")
    session = client.session_id
    again = CodeInterpreterClient(auth_token=os.environ["AGENTCUBE_TOKEN"], session_id=session)
    assert again.execute_command("cat folder/file.txt") == "content\\n"
    again.stop()
assert client.cp_client.delete_session(session) is True
print("done")
"""

AGENT_RUNTIME = """
import os
from agentcube import AgentRuntimeClient

with AgentRuntimeClient(agent_name="my-agent") as client:
    assert client.session_id
    answer = client.invoke({"input": "hello"})
    assert answer["output"] == "echo: hello", answer
    again = AgentRuntimeClient(agent_name="my-agent", session_id=client.session_id)
    assert again.invoke({"input": "hello"}) == answer
    again.close()
print("done")
"""


def run(script: str, folder: Path, **variables: str) -> None:
    (folder / "script.py").write_text(script)
    env = {**os.environ, **variables, "NO_PROXY": "*"}
    result = subprocess.run(
        [sys.executable, "script.py"], cwd=folder, env=env, capture_output=True, text=True, timeout=50
    )
    assert (result.returncode, result.stdout) == (0, "done\n"), result.stderr


def test_code_interpreter_client(server: Server, tmp_path: Path) -> None:
    """Its code-interpreter client creates, runs, moves files, fails and stops as with a cluster."""
    run(CODE_INTERPRETER, tmp_path, **server.endpoint.env)


def test_agent_runtime_client(server: Server, tmp_path: Path) -> None:
    """Its agent client, which knows no token, finds it in the URL."""
    url = server.endpoint.data_url.replace("http://", f"http://agentcube:{server.token}@")
    run(AGENT_RUNTIME, tmp_path, ROUTER_URL=url)
