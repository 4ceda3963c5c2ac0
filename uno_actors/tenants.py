"""Names of tenants, and the URLs of their stores.

Each tenant has a store of its own, at a URL with the tenant's name in the place of ``{tenant}``. So a name must be safe
in a path, in the name of a database and in a URL, and no two names may mean the same place on any system: names are
lower-case ASCII, and everything else is refused instead of being converted.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from uno_actors.errors import InvalidStoreUrl, InvalidTenant, UnknownTenant
from uno_actors.store_urls import path_in

FIELD = "{tenant}"
"""What stands in the URL of a store for the name of a tenant."""

LONGEST_NAME = 40
"""Characters of the name of a tenant."""
LONGEST_DATABASE = 63
"""Bytes of the name of a database on a server. PostgreSQL cuts off the rest, so that two tenants would share one."""

MAX_OPEN = 100
"""Default of the number of tenants whose systems run at once."""
IDLE_AFTER = 600.0
"""Default of the seconds without use after which the system of a tenant stops."""

EXPECTED = (
    f"1 to {LONGEST_NAME} of the characters a-z, 0-9, '-' and '_', the first and the last a letter or a digit"
)

_NAME = re.compile(rf"[a-z0-9](?:[a-z0-9_-]{{0,{LONGEST_NAME - 2}}}[a-z0-9])?")
_DEVICE = re.compile(r"con|prn|aux|nul|com[0-9]|lpt[0-9]")
_OTHER_FIELD = re.compile(r"\{\w*\}")
_BEFORE_PLACE = re.compile(r"[^:/?#]*:(?://[^/?#]*)?")
"""The scheme and, for a server, the user and the host."""


@dataclass(frozen=True, slots=True)
class TenantOptions:
    """The options of `uno_actors.Tenants` in a configuration file; see there."""

    names: tuple[str, ...] | None = None
    keep: tuple[str, ...] | Literal["all"] = ()
    max_open: int = MAX_OPEN
    idle_after: float = IDLE_AFTER

    def options(self) -> dict[str, Any]:
        """As arguments."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


def check_tenant(name: object) -> str:
    """``name``, if it can be that of a tenant.

    Raises:
        InvalidTenant: It cannot.
    """
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise InvalidTenant(name, f"expected {EXPECTED}")
    if _DEVICE.fullmatch(name) is not None:
        raise InvalidTenant(name, "Windows has a device of this name")
    return name


def is_template(url: str) -> bool:
    """Whether a store's URL is that of the stores of many tenants."""
    return FIELD in url


def check_template(template: str) -> None:
    """Check that a URL gives each tenant a store of its own.

    Raises:
        InvalidStoreUrl: It has no ``{tenant}`` in its path or in the name of its database, or one elsewhere.
    """
    if template.partition(":")[0] == "memory" and not is_template(template):
        return  # each is a store of its own
    before = _BEFORE_PLACE.match(template)
    place, _, options = template[0 if before is None else before.end() :].partition("?")
    reason = ""
    if _OTHER_FIELD.search(place.replace(FIELD, "")):
        reason = f"the only field of the URL of tenants' stores is {FIELD}"
    elif FIELD in options or (before is not None and FIELD in before[0]):
        reason = f"{FIELD} belongs into the path or the name of the database, which tells stores apart"
    elif FIELD not in place:
        reason = (
            f"all tenants would share this store: write {FIELD} into its path or the name of its database"
        )
    if reason:
        raise InvalidStoreUrl(template, [], reason)


def url_of_tenant(template: str, tenant: str) -> str:
    """The URL of a tenant's store.

    Args:
        template: The URL of the stores, with ``{tenant}``.
        tenant: The name of a tenant.

    Raises:
        InvalidTenant: No tenant can have this name.
        InvalidStoreUrl: See `check_template`; or the name of the database would be too long.
    """
    check_tenant(tenant)
    check_template(template)
    url = template.replace(FIELD, tenant)
    if path_in(url) is None and template != url:
        before = _BEFORE_PLACE.match(url)
        database = url[0 if before is None else before.end() :].partition("?")[0]
        if any(len(part.encode()) > LONGEST_DATABASE for part in database.split("/")):
            reason = f"for {tenant!r} the name of the database has more than {LONGEST_DATABASE} bytes"
            raise InvalidStoreUrl(template, [], reason)
    return url


def check_known(template: str, tenant: str, names: Collection[str] | None, where: str, remedy: str) -> None:
    """Check that there is a tenant: a misspelt name must not make a store.

    Args:
        template: The URL of the stores, with ``{tenant}``.
        tenant: The name.
        names: The tenants that exist, if they are listed: a store is then made at the first use. Otherwise those exist
            that have a place on disk; of stores elsewhere it is not known.
        where: Where the names are listed.
        remedy: What makes the store of a new tenant.

    Raises:
        UnknownTenant: There is none of this name.
    """
    if names is not None:
        if tenant not in names:
            raise UnknownTenant(tenant, f"it is not among {where}")
        return
    place = path_in(url_of_tenant(template, tenant))
    if place is not None and not place.exists():
        raise UnknownTenant(tenant, f"it has no store; make one by {remedy}")


def tenants_on_disk(template: str) -> list[str] | None:
    """The tenants that have a place on disk, sorted; ``None`` if the stores are not in files or directories.

    Raises:
        InvalidStoreUrl: See `check_template`.
    """
    check_template(template)
    marked = path_in(template)
    if marked is None:
        return None
    parts = marked.parts
    number = next(index for index, part in enumerate(parts) if FIELD in part)
    above, part = Path(*parts[:number]), parts[number]
    pattern = re.compile(re.escape(part).replace(re.escape(FIELD), f"({_NAME.pattern})", 1))
    found = []
    for entry in above.iterdir() if above.is_dir() else ():
        match = pattern.fullmatch(entry.name) if part.count(FIELD) == 1 else None
        if match is None or _DEVICE.fullmatch(match[1]) is not None:
            continue
        place = path_in(url_of_tenant(template, match[1]))
        if place is not None and place.exists():
            found.append(match[1])
    return sorted(found)
