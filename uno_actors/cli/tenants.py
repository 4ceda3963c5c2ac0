"""Runs the tenants of a configuration file as a service, until a signal stops it."""

import asyncio
import signal
import sys
from collections.abc import Callable
from dataclasses import replace

from uno_actors.cli.service import (
    CANNOT_START,
    RELOAD,
    STOPPED,
    EarlySignals,
    LogForm,
    end_process,
    log_findings,
    log_of,
    log_warnings,
    on_record,
    on_signal,
)
from uno_actors.config.errors import InvalidConfig
from uno_actors.config.reader import Config, load
from uno_actors.errors import UnoError, describe
from uno_actors.logs import write_logs
from uno_actors.system.system import ActorSystem
from uno_actors.system.tenants import Tenants
from uno_actors.tasks import begin


class TenantsService:
    """Runs the systems of tenants until a signal stops them, as `uno_actors.cli.service.Service` runs one system.

    Args:
        config: Configuration of the systems.
        log_form: Log format, in place of the file's.
        early: Signals that arrived before.
    """

    def __init__(self, config: Config, log_form: LogForm | None, early: EarlySignals) -> None:
        self._config = config
        self._log_form = log_form
        self._must_stop, self._must_reload = asyncio.Event(), asyncio.Event()
        if early.must_reload:
            self._must_reload.set()
        options = {} if config.tenants is None else config.tenants.options()
        self._tenants = Tenants(config.system.url, self._make_system, **options)
        self._log = log_of(config)

    def _make_system(self, _store: str, tenant: str) -> ActorSystem:
        return ActorSystem._of(self._config, tenant=tenant)

    async def run(self) -> int:
        """Serve the tenants, and return the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            on_signal(loop, number, self._stopper(number))
        if RELOAD is not None:
            on_signal(loop, RELOAD, self._must_reload.set)
        on_record(lambda: self._tenants.systems().values())
        async with self._tenants:
            self._log.info("tenants are served", tenants=len(self._tenants.names()))
            reloading = begin(loop, self._keep_reloading())
            await self._must_stop.wait()
            reloading.cancel()
        self._log.info("tenants stopped")
        return STOPPED

    def _stopper(self, number: int) -> Callable[[], None]:
        def stop() -> None:
            if self._must_stop.is_set():
                end_process(128 + number)
            self._log.info("stopping on signal", signal=signal.Signals(number).name)
            self._must_stop.set()

        return stop

    async def _keep_reloading(self) -> None:
        while True:
            await self._must_reload.wait()
            self._must_reload.clear()
            self._log.info("reading the configuration again", file=self._config.file)
            try:
                await self._reload(load(self._config.file))
            except InvalidConfig as error:
                for fault in error.faults:
                    self._log.error("configuration is wrong and nothing changes", fault=str(fault))
            except Exception as error:  # noqa: BLE001 - the service keeps running with the present configuration
                self._log.error("configuration cannot be applied", exc_info=error)

    async def _reload(self, config: Config) -> None:
        """Change the trees of the systems that run; those that start later begin with it."""
        for table in ("system", "aggregates", "cluster", "tenants"):
            if getattr(config, table) != getattr(self._config, table):
                self._log.warning("changes take effect at the next start", options=[table])
        write_logs(sys.stderr, config.logging.level, self._log_form or config.logging.format)
        now = self._config
        config = replace(
            config, system=now.system, aggregates=now.aggregates, cluster=now.cluster, tenants=now.tenants
        )
        self._config = config
        for tenant, system in self._tenants.systems().items():
            reloaded = await system.reload(config)
            for name, error in reloaded.failed.items():
                self._log.error("child cannot be started", tenant=tenant, child=name, exc_info=error)
        self._log.info("configuration applied")


def run_tenants(config: Config, log_form: LogForm | None, early: EarlySignals) -> int:
    """Run the systems of the tenants of ``config`` in this process until a signal; return the exit code."""
    write_logs(sys.stderr, config.logging.level, log_form or config.logging.format)
    log_warnings(log_of(config))
    log_findings(config)

    async def run() -> int:
        return await TenantsService(config, log_form, early).run()

    try:
        return asyncio.run(run())
    except UnoError as error:
        log_of(config).critical("tenants cannot start", error=describe(error))
    return CANNOT_START
