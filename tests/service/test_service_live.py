"""The service as a real BentoML process with a real registry."""

from __future__ import annotations


def test_before_a_champion_the_service_lives_but_is_not_ready(service):
    """Without a model: /livez 200, /readyz 503, /models empty, /reconstruct 503 with a remedy."""
    assert service.before["/livez"].status_code == 200
    assert service.before["/readyz"].status_code == 503
    assert service.before["/models"].json()["models"] == []
    refusal = service.before["/reconstruct"]
    assert refusal.status_code == 503
    assert refusal.json()["error"] == "NoModelError"
    assert "cvdm retrain" in refusal.json()["remedy"]


def test_with_a_champion_the_service_is_ready(service):
    """A verified champion makes /readyz 200."""
    assert service.get("/readyz").status_code == 200
    print(service.get("/models").text)
    print(service.log.read_text())
    assert 0
