"""Rules between the values of a configuration file."""

from collections.abc import Iterator, Sequence
from typing import Any

from uno_actors.config.tables import SupervisorTable, SystemTable, TenantsTable
from uno_actors.config.toml import Path as Keys
from uno_actors.errors import InvalidStoreUrl
from uno_actors.store_urls import path_in
from uno_actors.tenants import LONGEST_NAME, check_template, is_template, url_of_tenant


def example_url(url: str) -> str:
    """``url``, or that of a tenant if it is one of many.

    Raises:
        InvalidStoreUrl: Tenants would share a store.
    """
    return url_of_tenant(url, "t" * LONGEST_NAME) if is_template(url) else url


def faults_of_tenants(system: SystemTable, tenants: TenantsTable | None) -> Iterator[tuple[Keys, str]]:
    """Yield what is wrong, with the key."""
    if tenants is None:
        return
    try:
        check_template(system.url)
    except InvalidStoreUrl as error:
        yield ("system", "store"), error.reason
        return
    if tenants.names is None and path_in(system.url) is None:
        yield ("tenants",), "the stores are not on disk, so their tenants cannot be found: add names = [...]"
    if tenants.keep != "all" and len(tenants.keep) > tenants.max_open:
        reason = f"{len(tenants.keep)} tenants are to be kept, and at most max_open, {tenants.max_open}, may be open"
        yield ("tenants", "keep"), reason
    if tenants.names is not None and tenants.keep != "all":
        for index, name in enumerate(tenants.keep):
            if name not in tenants.names:
                yield ("tenants", "keep", index), f"{name!r} is not among the names of tenants"


def faults_of_significance(
    table: SupervisorTable, keys: Keys, significant: Sequence[tuple[Keys, str]]
) -> Iterator[tuple[Keys, str, Any]]:
    """Yield what contradicts ``auto_shutdown`` of a supervisor, with the key and the value.

    Args:
        table: The supervisor.
        keys: Where it is written.
        significant: Its significant children: where each is written, and when it is restarted.
    """
    for child, restart in significant:
        at = (*child, "significant")
        if restart == "permanent":
            yield at, 'it is permanent and never exits by itself: write restart = "transient"', True
        elif table.auto_shutdown == "never":
            yield at, f'it has no effect while auto_shutdown of {table.name!r} is "never"', True
    if not significant and table.auto_shutdown != "never":
        yield (*keys, "auto_shutdown"), "it has no effect: no child is significant", table.auto_shutdown
