"""What Hypothesis draws the domain's values from."""

from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from redrive.domain.outcome import (
    ALWAYS_RETRYABLE,
    NEVER_RETRYABLE,
    RETRYABLE_NETWORK_CODES,
    Answer,
    Failed,
    Outcome,
    Reach,
    classify,
)
from redrive.domain.retry import RetryPolicy

instants = st.datetimes(datetime(2024, 1, 1), datetime(2090, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
chances = st.floats(0, 1, exclude_max=True)
statuses = st.integers(0, 999)
network_codes = st.sampled_from(sorted({*ALWAYS_RETRYABLE, *NEVER_RETRYABLE, *RETRYABLE_NETWORK_CODES}))
asked = st.none() | st.timedeltas(timedelta(0), timedelta(hours=24))


@st.composite
def policies(draw: st.DrawFn) -> RetryPolicy:
    """Any policy check_integration lets through."""
    base = draw(st.floats(0.001, 86_400))
    return RetryPolicy(
        max_attempts=draw(st.integers(1, 100)),
        base_delay_seconds=base,
        max_delay_seconds=draw(st.floats(base, 86_400)),
        jitter=draw(st.floats(0, 1)),
        network_codes=draw(st.frozensets(st.sampled_from(RETRYABLE_NETWORK_CODES))),
    )


@st.composite
def outcomes(draw: st.DrawFn) -> Outcome:
    """Any answer, and any failure without one."""
    if draw(st.booleans()):
        return classify(Answer(draw(statuses), (), b""), retry_after=draw(asked))
    return Failed(draw(network_codes), "it broke", draw(st.sampled_from(Reach)))
