"""Audit events: what happened to what, who caused it, and its state before and after. Pure."""
