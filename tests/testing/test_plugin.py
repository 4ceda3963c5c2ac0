import pytest

pytest_plugins = ["pytester"]


def test_the_fixtures_come_with_the_installed_package(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from uno_actors import DomainEvent, subscribe
        from uno_actors.handlers.subscribe import handler_registry

        @subscribe(name="of the module")
        def outside(event: DomainEvent): ...

        def test_with_own_handlers(own_handlers):
            assert not own_handlers

            @subscribe(name="of the test")
            def inside(event: DomainEvent): ...

            assert [spec.name for spec in handler_registry.values()] == ["of the test"]

        def test_after_that():
            assert [spec.name for spec in handler_registry.values()] == ["of the module"]

        def test_time_is_turned_by_hand(manual_clock):
            rung = []
            manual_clock.call_later(60, lambda: rung.append(manual_clock.monotonic()))
            before = manual_clock.monotonic()
            manual_clock.advance(59)
            assert not rung
            manual_clock.advance(2)
            assert rung == [before + 60] and manual_clock.monotonic() == before + 61

        def test_a_probe(probe):
            probe.receive(1)
            assert probe.messages == [1]
        """
    )
    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=4)
