"""One module a command of ``ivr``, each exporting ``command``. They are loaded when they are run."""
