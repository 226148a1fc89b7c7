"""The HTTP skin of contract §4: it reads calls, asks the engine's verbs, and writes replies."""
