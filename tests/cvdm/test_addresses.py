"""Addresses for people: what opens a store is never shown, whatever way it is written."""

from __future__ import annotations

import traceback

import pytest

from cvdm.addresses import harmless, shown_uri, without_password


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://tracker:5000", "http://tracker:5000"),
        ("http://tracker:5000/a@b", "http://tracker:5000/a@b"),
        ("https://ada:secret@mlflow.example.org/base/", "https://mlflow.example.org/base/"),
        ("https://secret-token@mlflow.example.org", "https://mlflow.example.org"),
        ("http://ada:se/secret@tracker:5000", "http://tracker:5000"),
        ("http://ada:secret@tracker:5000/?token=secret", "http://tracker:5000/"),
        ("http://ada:secret@[::1]:5000", "http://[::1]:5000"),
        ("postgresql://ada:secret@host:5432/db", "postgresql://host:5432/db"),
        ("postgresql+psycopg2://ada:12/secret?#@host/db", "postgresql+psycopg2://host/db"),
        ("postgresql://ada:secret@secret@host/db", "postgresql://host/db"),
        ("postgresql://host/db?user=ada&password=secret", "postgresql://host/db"),
        ("s3://key:secret@bucket/folder", "s3://bucket/folder"),
        ("s3://bucket/me@work", "s3://bucket/me@work"),
        ("ada:secret@tracker:5000", "tracker:5000"),
        ("sqlite:////home/me:x@work/mlflow.db?timeout=5", "sqlite:////home/me:x@work/mlflow.db?timeout=5"),
        ("/home/me:x@work", "/home/me:x@work"),
    ],
)
def test_an_address_is_shown_without_what_opens_it(uri, shown):
    """Users, passwords and tokens go; scheme, host and path stay, and so do paths of files with an @."""
    assert shown_uri(uri) == shown


@pytest.mark.parametrize("form", ["p@ss/wörd+1", "p%40ss%2Fw%C3%B6rd%2B1", "p%40ss/w%c3%b6rd%2b1"])
def test_a_password_is_found_in_a_text_however_it_is_quoted(form):
    """The address may hold it quoted while a library tells it plainly, or the other way round."""
    uri = "postgresql://ada:p%40ss%2Fw%C3%B6rd%2B1@host/db"
    for text in (
        f"cannot open {uri}",
        f"'{form}' is refused",
        f"no answer from postgresql://ada:{form}@host",
    ):
        told = without_password(text, uri)
        assert not any(part in told for part in ("ss", "rd", "ada")), told


def test_a_text_that_names_no_password_stays_as_it_is():
    """Nothing is taken away from other messages."""
    for uri in ("http://tracker:5000", "sqlite:////a/mlflow.db", "http://ada:secret@tracker:5000"):
        text = "API request to http://tracker:5000/api failed: me@example.org was not found"
        assert without_password(text, uri) == text


def test_the_address_of_another_store_is_told_without_its_password_too():
    """Artifacts may lie elsewhere, with a password of their own."""
    told = without_password("cannot write sftp://ada:other@files/run", "http://ada:secret@tracker:5000")
    assert told == "cannot write sftp://files/run"


def test_a_password_in_the_query_is_found():
    """As the drivers of databases take it."""
    told = without_password("connecting with 'se cret'", "postgresql://host/db?user=ada&password=se%20cret")
    assert told == "connecting with '***'"


def test_a_cause_that_shows_the_password_is_not_chained():
    """A traceback tells all causes; one without the password stays for whoever looks for the fault."""
    uri = "http://ada:secret@tracker:5000"
    assert "OSError: no answer\n" in traceback_of_a_failure("no answer", uri)
    told = traceback_of_a_failure(f"no answer from {uri}", uri)
    assert "ValueError" in told and "OSError" not in told and "secret" not in told


def traceback_of_a_failure(reason: str, uri: str) -> str:
    """What is logged of an error whose cause has a cause of its own, as those of libraries do."""
    try:
        try:
            try:
                raise OSError(reason)
            except OSError as first:
                raise KeyError("deeper") from first
        except KeyError as error:
            raise ValueError("the store") from harmless(error, uri)
    except ValueError as error:
        return "".join(traceback.format_exception(error))
