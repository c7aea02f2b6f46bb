"""The decision for people: one HTML file that needs no network, no server and no scripts.

document   what stands where
dots       every field as a line of two dots, one plot per metric
"""

from __future__ import annotations

from flows.gate.page.document import Shown, decision_page

__all__ = ["Shown", "decision_page"]
