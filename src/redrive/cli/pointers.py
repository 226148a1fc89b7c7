"""Where an input is wrong, in the words it was typed in: options instead of JSON pointers."""

from typing import Final

_OPTIONS: Final = {
    "/for_seconds": "--for",
    "/canary/size": "--canary",
    "/canary/share": "--canary-share",
    "/halt_if/share": "--halt-if",
    "/halt_if/last": "--halt-last",
    "/payload_base64": "--payload",
    "/headers": "--header",
    "/redact_pointers": "--redact-pointer",
    "/redact_headers": "--redact-header",
}
_ARGUMENTS: Final = {
    "/url": "TARGET_URL",
    "/filter/recovery_ids": "RECOVERY_IDS",
    "integration_id": "INTEGRATION_ID",
    "recovery_id": "RECOVERY_ID",
    "replay_id": "REPLAY_ID",
    "group_id": "GROUP_ID",
}


def option_of(pointer: str, instance: str) -> str:
    """The option or argument behind a *pointer* of a refusal at *instance*; where none is known, itself."""
    if pointer == "/rate_per_second" and instance.endswith("/release"):
        return "--rate"
    if (known := _OPTIONS.get(pointer) or _ARGUMENTS.get(pointer)) is not None:
        return known
    name = pointer.removeprefix("/filter").removeprefix("/")
    plain = name.replace("_", "").isalpha() and name.islower()
    return f"--{name.replace('_', '-')}" if plain else pointer
