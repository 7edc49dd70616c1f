"""Pay by speaking on the telephone: the service. ``docs`` and the README say how it hangs together."""
