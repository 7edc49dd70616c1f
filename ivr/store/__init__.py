"""The database and Redis: how to reach them, and nothing of what lies in them."""
