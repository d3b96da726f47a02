"""jupyter_kernel_test with every attribute filled in, so that none of its tests is skipped."""

from __future__ import annotations

import os
from typing import Any, ClassVar

import jupyter_kernel_test
import pytest

pytestmark = pytest.mark.timeout(120)

HTML = "from IPython.display import HTML, display; display(HTML('<b>test</b>'))"
# The smallest PNG, since a sandbox need not have anything that draws.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
IMAGE = (
    f"import base64; from IPython.display import Image, display; display(Image(base64.b64decode('{PNG}')))"
)


@pytest.fixture(scope="class", autouse=True)
def an_agentcube(endpoint_env: dict[str, str]) -> Any:
    """The kernel that the test class starts is led to this run's AgentCube by the environment."""
    before = dict(os.environ)
    os.environ.update(endpoint_env)
    yield
    os.environ.clear()
    os.environ.update(before)


class TestAgentCubeKernel(jupyter_kernel_test.KernelTests):
    """All of the messages that jupyter_kernel_test knows."""

    kernel_name = "agentcube"
    language_name = "python"
    file_extension = ".py"

    code_hello_world = "print('hello, world')"
    code_stderr = "import sys; print('test', file=sys.stderr)"
    completion_samples: ClassVar[list[dict[str, Any]]] = [
        {"text": "zi", "matches": {"zip"}},
        {"text": "import collec", "matches": {"collections"}},
    ]
    complete_code_samples: ClassVar[list[str]] = [
        "1",
        "print('hello, world')",
        "def f(x):\n  return x*2\n\n\n",
    ]
    incomplete_code_samples: ClassVar[list[str]] = [
        "print('''hello",
        "def f(x):\n  x*2",
        "for i in range(3):",
    ]
    invalid_code_samples: ClassVar[list[str]] = ["import = 7q", "print(1))"]
    code_page_something = "zip?"
    code_generate_error = "raise ValueError('on purpose')"
    code_execute_result: ClassVar[list[dict[str, str]]] = [
        {"code": "1+2+3", "result": "6"},
        {"code": "[n*n for n in range(1, 4)]", "result": "[1, 4, 9]"},
        {
            "code": "from IPython.display import HTML; HTML('<i>x</i>')",
            "result": "<i>x</i>",
            "mime": "text/html",
        },
    ]
    code_display_data: ClassVar[list[dict[str, str]]] = [
        {"code": HTML, "mime": "text/html"},
        {"code": IMAGE, "mime": "image/png"},
    ]
    supported_history_operations = ("tail", "range", "search")
    code_history_pattern = "1?2*"
    code_inspect_sample = "zip"
    code_clear_output = "from IPython.display import clear_output; clear_output()"


class TestIopubWelcome(jupyter_kernel_test.IopubWelcomeTests):
    """The first message on the output channel tells a front end that it is connected."""

    kernel_name = "agentcube"
    support_iopub_welcome = True
