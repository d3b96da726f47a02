"""AgentCube sandboxes for agent frameworks: one module for each, which imports that framework and no other."""
