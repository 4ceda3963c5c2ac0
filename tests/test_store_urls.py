"""Passwords in the URLs of stores are shown to no one, however the URL is written."""

import asyncio
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from uno_actors import InvalidConfig, UnoError, open_store
from uno_actors.config.reader import load
from uno_actors.errors import InvalidStoreUrl, StoreUnavailable
from uno_actors.printable import traceback_text
from uno_actors.store.opening import check_store_url
from uno_actors.store_urls import is_secret_name, without_password, without_secrets


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgres://me:hunter2@there/shop", "postgres://me:***@there/shop"),
        ("postgres://:hunter2@there/shop", "postgres://:***@there/shop"),
        ("postgres://me:hu@nt/er?2#x@there/shop", "postgres://me:***@there/shop"),  # nothing is escaped
        ("postgres://me@there/shop?password=hunter2&patience=1", "postgres://me@there/shop?password=***&patience=1"),
        ("postgres://there/shop?p%61ssword=hunter2", "postgres://there/shop?p%61ssword=***"),
        ("postgres://there/shop?password=hu&nter2@x&y=1", "postgres://there/shop?password=***&y=1"),
        ("postgres://me@there/shop?password=hu@nter2", "postgres://me@there/shop?password=***"),
        ("postgres://me:hunter2@there/shop?sslpassword=hunter2", "postgres://me:***@there/shop?sslpassword=***"),
        ("postgres://me:hunter2/shop", "postgres://me:***/shop"),  # no @
        ("postgres:me:hunter2@there", "postgres:***@there"),  # no //
        ("me:hunter2@there/shop", "me:***@there/shop"),  # no scheme
        ("//me:hunter2@there/shop", "//me:***@there/shop"),
        ("postgres:///me:hunter2@there/shop", "postgres:///me:***@there/shop"),
        ("lmdb://me:hunter2@there/shop", "lmdb://me:***@there/shop"),
        ("sqlite+aiosqlite://me:hunter2@there/shop", "sqlite+aiosqlite://me:***@there/shop"),
        ("postgres://me:hunter2@[::1]:5432/shop", "postgres://me:***@[::1]:5432/shop"),
        *[
            (url, url)
            for url in (
                "postgres://there/shop",
                "postgres://there:5432/shop?patience=1",
                "postgres://me@there:5432/shop",
                "postgres://[::1]:5432/shop",
                "postgres://one:5432,two:5432/shop",
                "lmdb:/data/a:b@c?max_size=1",
                "sqlite+aiosqlite:////data/a:b@c",
                "memory:",
                "nonsense",
                "",
            )
        ],
    ],
)  # fmt: skip
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_password(url) == shown
    assert without_password(shown) == shown


def test_names_of_secrets_are_known() -> None:
    names = ("passivate_after", "patience", "password", "sslkey", "api_token")
    assert list(filter(is_secret_name, names)) == ["password", "sslkey", "api_token"]


def test_a_text_about_a_url_is_shown_without_its_password() -> None:
    url = "postgres://me:hu%40nter2@there?token=abc"
    text = "no 'hu%40nter2' or hu@nter2 or nter2, nor abc, at there"
    assert without_secrets(text, url) == "no '***' or *** or nter2, nor ***, at there"


TOKEN = "hunter2x"  # noqa: S105 - it is looked for in what is shown
AROUND = st.text(st.sampled_from("ab1@/?#:&=%.;+ é"), max_size=6)
SECRETS = st.builds(lambda a, b: f"a{a}{TOKEN}{b}", AROUND, AROUND)
"""Passwords that begin with a letter: one that is a number before a slash is a port."""
ESCAPED = SECRETS.map(lambda secret: quote(secret, safe=""))
SCHEMES = st.sampled_from(
    ["postgresql+asyncpg://", "postgresql://", "nosuch://", "postgresql+asyncpg:", "postgres:/", "", "//"]
)
NAMES = st.sampled_from(["password", "passwd", "sslpassword", "PASSWORD", "p%61ssword", "token", "secret"])
USERS = st.sampled_from(["bob", "", "b%40b"])
URLS = st.builds(
    lambda scheme, user, secret, options: f"{scheme}{user}:{secret}@127.0.0.1:1/db{options}",
    SCHEMES,
    USERS,
    SECRETS | ESCAPED,
    st.sampled_from(["", "?patience=0.01", "?patience=x", "?x=y"]),
) | st.builds(
    lambda scheme, user, name, secret: f"{scheme}{user}127.0.0.1:1/db?patience=0.01&{name}={secret}",
    SCHEMES,
    st.sampled_from(["", "bob@"]),
    NAMES,
    ESCAPED,
)


def shown_by(url: str, file: Path) -> list[str]:
    """All texts that show a URL that leads nowhere."""
    shown = [
        without_password(url),
        str(InvalidStoreUrl(url, [], f"cannot read {url}")),
        str(StoreUnavailable(url, f"cannot reach {url}")),
    ]

    async def use() -> None:
        store = open_store(url)
        shown.append(repr(store))
        async with store:
            await store.last_position()

    for attempt in (lambda: check_store_url(url), lambda: asyncio.run(use())):
        try:
            attempt()
        except UnoError as error:
            shown += [traceback_text(error), repr(error), repr(vars(error))]
    written = "".join(f"\\U{ord(character):08x}" if character in '"\\' else character for character in url)
    for line in (
        f'store = "{written}"',
        f'store = "{written}',
        f'stor = "{written}"',
        f'store = ["{written}"]',
    ):
        file.write_text(f"[system]\n{line}\n", "utf-8")
        try:
            shown.append(repr(load(file)))
        except InvalidConfig as error:
            shown += [traceback_text(error), repr(error), *(str(fault.as_dict()) for fault in error.faults)]
    return shown


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("urls") / "file.toml"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(url=f"postgresql+asyncpg://bob:a@:{TOKEN}@127.0.0.1:1/db")
@example(url=f"postgresql+asyncpg://bob:a@{TOKEN}?@127.0.0.1:1/db")
@example(url=f"postgresql+asyncpg://bob:a@b/{TOKEN}@127.0.0.1:1/db")
@example(url=f"postgresql+asyncpg://bob:a@b?x={TOKEN}@127.0.0.1:1/db")
@given(url=URLS)
def test_no_password_is_shown_anywhere(url: str, file: Path) -> None:
    for text in shown_by(url, file):
        assert TOKEN not in text


@pytest.mark.parametrize(
    ("url", "is_refused"),
    [
        ("postgresql+asyncpg://bob:a@b@there/shop", True),
        ("postgresql+asyncpg://bob:a@b?@there/shop", True),
        ("postgresql+asyncpg://bob:a@there/shop?application_name=me@here", True),
        ("postgresql+asyncpg://bob:a%40b@there/shop?application_name=me%40here", False),
        ("postgresql+asyncpg://bob@there/shop?application_name=me@here", False),
        ("postgresql+asyncpg://there:5432/shop?application_name=me@here", False),
        ("postgresql+asyncpg://bob@there/shop?password=a@b", False),
        ("sqlite+aiosqlite:////data/a:b@c@d", False),
    ],
)
def test_a_password_with_a_mark_that_ends_passwords_is_refused_with_the_remedy(
    url: str, is_refused: bool
) -> None:
    if not is_refused:
        check_store_url(url)
        return
    with pytest.raises(InvalidStoreUrl, match="write %40 for an '@'") as refused:
        check_store_url(url)
    assert "bob:***@" in str(refused.value)


@given(url=URLS)
def test_hiding_hides_once(url: str) -> None:
    assert without_password(without_password(url)) == without_password(url)
    assert TOKEN not in without_password(url)


def test_options_of_a_store_in_a_file_are_hidden_where_they_are_secret(file: Path) -> None:
    for option in (
        f'password = ["{TOKEN}"]',
        f"password = 1.5\ntoken = '{TOKEN}' x",
        f'password = "{TOKEN}"',
    ):
        file.write_text(f'[system]\nstore = "lmdb:x"\n[system.store_options]\n{option}\n', "utf-8")
        with pytest.raises(InvalidConfig) as refused:
            load(file)
        assert TOKEN not in str(refused.value)
