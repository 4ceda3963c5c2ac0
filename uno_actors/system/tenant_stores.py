"""Which stores of this process belong to which tenant, so that handlers of one cannot use the system of another."""

from weakref import WeakKeyDictionary

from uno_actors.causality import current_cause
from uno_actors.errors import InvalidTenant, OtherTenant

_tenants: WeakKeyDictionary[object, str] = WeakKeyDictionary()


def belongs_to(store: object, tenant: str) -> None:
    """Note that an open store is that of a tenant.

    Raises:
        InvalidTenant: It is that of another.
    """
    known = _tenants.setdefault(store, tenant)
    if known != tenant:
        raise InvalidTenant(tenant, f"its store is that of tenant {known!r}: give each a store of its own")


def check_cause(tenant: str, store: object) -> None:
    """Check that no event of another tenant is being handled, where the system of ``tenant`` is used.

    Raises:
        OtherTenant: One is.
    """
    cause = current_cause()
    if cause is None or cause.store is None or cause.store is store:
        return
    handled = _tenants.get(cause.store)
    if handled is not None and handled != tenant:
        raise OtherTenant(tenant, handled)
