"""How fast requests end, by which those who are turned away are told to come back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.api.http.admission import WINDOW_SECONDS, Throughput
from tests.fakes.clock import Clock


class TestThroughput:
    @given(seconds=st.floats(0.01, 10.0), together=st.integers(1, 8))
    def test_it_is_what_ended_by_the_time_it_took(self, seconds: float, together: int) -> None:
        clock = Clock()
        throughput = Throughput(clock=clock)
        for _ in range(int(2 * WINDOW_SECONDS / seconds) + 1):
            for _ in range(together):
                throughput.begin()
            clock.now += seconds
            for _ in range(together):
                throughput.end()
        # What is taken for granted at the start still counts a little.
        assert throughput.per_second() == pytest.approx(together / seconds, rel=0.35)

    def test_quiet_time_does_not_count(self) -> None:
        clock = Clock()
        throughput = Throughput(clock=clock)
        for _ in range(100):
            throughput.begin()
            clock.now += 0.1
            throughput.end()
        before = throughput.per_second()
        clock.now += 3600
        assert throughput.per_second() == before

    def test_what_was_long_ago_is_forgotten(self) -> None:
        clock = Clock()
        throughput = Throughput(clock=clock)
        for _ in range(100):
            throughput.begin()
            throughput.end()
        throughput.begin()
        clock.now += 2 * WINDOW_SECONDS
        assert throughput.per_second() == pytest.approx(1 / WINDOW_SECONDS, rel=0.1)
