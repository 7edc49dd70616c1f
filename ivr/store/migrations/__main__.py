"""Writes the next migration: what the models have and a fresh database at the current head has not."""

from __future__ import annotations

import sys

from alembic import command

from ivr.store.db import Database
from ivr.store.migrations import config, head, upgrade

if len(sys.argv) != 2:
    sys.exit(__doc__ + '\nUsage: python -m ivr.store.migrations "what changed"')

database = Database("sqlite://")
upgrade(database)
with database.engine.begin() as connection:
    number = int(head() or 0) + 1
    command.revision(config(connection), sys.argv[1], autogenerate=True, rev_id=f"{number:04}")
