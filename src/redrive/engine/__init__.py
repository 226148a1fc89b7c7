"""The verbs: accept, claim, send, decide, record; and a person's verbs on what failed."""
