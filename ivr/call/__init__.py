"""The phone call: a pure flow of small steps, its prompts and its session."""
