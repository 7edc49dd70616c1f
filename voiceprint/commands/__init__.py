"""One module a command of ``voiceprint``, each with its ``command``."""
