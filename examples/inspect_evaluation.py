"""An evaluation with inspect-ai whose samples each have a sandbox. The model is scripted.

pip install 'agentcube-kernel[inspect]'
"""

from __future__ import annotations

import tempfile

from inspect_ai import Task, eval
from inspect_ai.dataset import Sample
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, use_tools
from inspect_ai.tool import bash


def main() -> None:
    """Evaluate two samples, and print how many were right."""
    outputs: list[ModelOutput] = []
    for _ in range(2):
        outputs.append(ModelOutput.for_tool_call("mockllm/model", "bash", {"command": "cat secret.txt"}))
        outputs.append(ModelOutput.from_content("mockllm/model", "The word is swordfish."))
    for output in outputs:
        output.usage = ModelUsage()  # else tokens are counted, with a table from the network
    task = Task(
        dataset=[
            Sample(
                input="Which word is in secret.txt?", target="swordfish", files={"secret.txt": "swordfish"}
            )
            for _ in range(2)
        ],
        solver=[use_tools(bash()), generate()],
        scorer=includes(),
        sandbox="agentcube",
    )
    with tempfile.TemporaryDirectory() as logs:
        model = get_model("mockllm/model", custom_outputs=outputs)
        log = eval(task, model=model, log_dir=logs, display="none", max_samples=1)[0]
        assert log.status == "success", log.error
        assert log.samples
        seen = [
            message.text for sample in log.samples for message in sample.messages if message.role == "tool"
        ]
        print(seen, log.results.scores[0].metrics["accuracy"].value if log.results else None)


if __name__ == "__main__":
    main()
