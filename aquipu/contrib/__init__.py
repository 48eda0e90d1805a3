"""aquipu in web services: one room for each framework, which knows only the public face of the engine."""
