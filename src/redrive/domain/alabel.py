"""Names in other scripts (IDNA 2008, RFC 5891) are written as A-labels, xn--…, each as its one name is."""


def wrong_label(host: str) -> str | None:
    """Why a label of *host*, which is in lower case, cannot be looked up; None when all can."""
    for label in host.split("."):
        if label[2:4] != "--":
            continue
        if not label.startswith("xn--"):
            return f"{label!r} has -- where only an A-label (xn--…) may have it"
        if not _is_a_label(label):
            return f"{label!r} is not an A-label of IDNA 2008"
    return None


def as_a_labels(host: str) -> str | None:
    """*host*, in any script, as it has to be written; None when it is no name."""
    import idna  # noqa: PLC0415 - its tables would cost every command a tenth of its time

    try:
        return idna.encode(host, uts46=True, std3_rules=True).decode("ascii")
    except UnicodeError:
        return None


def _is_a_label(label: str) -> bool:
    """Whether it is what its own meaning is written as: two ways to write one name would be two receivers."""
    import idna  # noqa: PLC0415 - its tables would cost every command a tenth of its time

    try:
        return idna.alabel(idna.ulabel(label)) == label.encode("ascii")
    except UnicodeError:
        return False
