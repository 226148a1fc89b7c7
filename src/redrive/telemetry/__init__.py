"""What happened, announced once as a typed event; listeners make log lines, metrics and spans of it."""
