"""The service keeps its word: its OpenAPI document holds for requests that nobody would think of."""

from __future__ import annotations

import os

import httpx
import hypothesis
import pytest
import schemathesis
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from schemathesis import checks
from service_world import acquired
from starlette.routing import Mount, Route

from service.desk import OPENAPI
from service.routes import build_app

DOCUMENT = yaml.safe_load(OPENAPI.read_text(encoding="utf-8"))
checks.load_all_checks()
CHECKS = [
    checks.not_a_server_error,
    *(
        checks.CHECKS.get_one(name)
        for name in (
            "status_code_conformance",
            "content_type_conformance",
            "response_headers_conformance",
            "response_schema_conformance",
        )
    ),
]
EXAMPLES = int(os.environ.get("CVDM_FUZZ_EXAMPLES", "15"))
"""Of each operation, four times as many of damaged images; set the variable for a longer search."""
PATIENT = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(hypothesis.HealthCheck),
    phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
)
OPERATIONS = [
    (path, method) for path, item in DOCUMENT["paths"].items() for method in item if method != "parameters"
]


def test_the_document_names_every_route_and_no_other():
    """Path by path and method by method; the page, and the document itself, are not part of it."""
    app = build_app()
    served = {
        (route.path.replace(":int}", "}"), method.lower())
        for route in app.routes
        if isinstance(route, Route) and route.methods
        for method in route.methods - {"HEAD"}
    }
    unlisted = {(path, "get") for path in ("/", "/ui", "/metrics", "/openapi.json")}
    assert served - unlisted == set(OPERATIONS)
    assert [route.path for route in app.routes if isinstance(route, Mount)] == ["/ui"]


def test_what_is_nowhere_is_said_in_the_same_words(service):
    """A path that there is not, a method that there is not, and the way to the page."""
    reply = service.get("/nowhere")
    assert reply.status_code == 404 and reply.json()["actual"] == "'/nowhere'"
    reply = service.get("/models/a%0Ab/1/card")
    assert reply.status_code == 404 and reply.json()["actual"] == r"'/models/a\nb/1/card'"
    assert httpx.put(f"{service.url}/jobs").status_code == 405
    assert httpx.delete(f"{service.url}/nowhere").status_code == 404
    for path in ("/", "/ui"):
        assert service.get(path).headers["location"] == "/ui/"
    assert service.get("/ui/", follow_redirects=True).text.startswith("<!doctype html>")
    assert service.get("/livez").status_code == service.get("/docs.json").status_code == 200


@pytest.fixture(scope="module")
def schema(service):
    """As the running service tells it, with a restored job's id as what ids may be."""
    document = service.get("/openapi.json").json()
    assert document["components"]["schemas"]["Choices"]["properties"]["samples"]["maximum"] == 64
    reply = httpx.post(
        f"{service.url}/jobs", files={"image": ("a.tif", acquired(32))}, data={"samples": "2", "steps": "1"}
    )
    id = reply.json()["id"]
    service.wait_for(lambda: service.get(f"/jobs/{id}").json()["state"] == "done")
    document["components"]["parameters"]["id"]["schema"]["enum"] = [id, "none", "../..", "%00"]
    return schemathesis.openapi.from_dict(document)


@pytest.mark.parametrize(("path", "method"), OPERATIONS, ids=lambda value: value)
def test_every_operation_answers_as_documented(service, schema, path, method):
    """Never with a failure of its own, always with a documented status, type and content."""

    @given(case=schema[path][method.upper()].as_strategy())
    @PATIENT
    def holds(case):
        response = case.call(base_url=service.url, timeout=60)
        case.validate_response(response, checks=CHECKS)

    holds()


@given(data=st.data())
@settings(PATIENT, max_examples=4 * EXAMPLES)
def test_no_damage_to_an_image_is_a_failure_of_the_service(service, data):
    """Bytes of a sound TIFF changed, dropped, doubled: restored or refused, never a status from 500 on."""
    content = bytearray(acquired(32))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        end = min(len(content), at + data.draw(st.sampled_from([1, 2, 4, 100])))
        kind = data.draw(st.sampled_from(["change", "drop", "double", "cut"]))
        if kind == "change":
            content[at:end] = data.draw(st.binary(min_size=end - at, max_size=end - at))
        elif kind == "drop":
            del content[at:end]
        elif kind == "double":
            content[at:at] = content[at:end]
        else:
            del content[max(at, 1) :]
        if not content:
            break
    reply = service.reconstruct(bytes(content), samples=2, steps=1)
    assert reply.status_code in (200, 413, 422), reply.text
    if reply.status_code != 200:
        assert {"error", "expected", "actual", "remedy"} <= set(reply.json())
