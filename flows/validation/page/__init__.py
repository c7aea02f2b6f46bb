"""The report of a validation for people: one HTML file that needs no network, no server and no scripts.

document   write_page: what stands where
words      the rules in plain words, and why each matters
findings   refusals and warnings, grouped by rule
values     numbers as text
scale      the axis of a measured quantity
marks      what plots are drawn with
lanes      one session in such a plot
strips     every pair as a dot, one plot per quantity
shifts     how targets lie on their inputs
pairs      one card per pair
thumbnails small pictures of images
"""

from __future__ import annotations

from flows.validation.page.document import write_page

__all__ = ["write_page"]
