"""``ivr demo``: recorded callers call a real service with a real (sandbox) bank, and every scene is checked."""
