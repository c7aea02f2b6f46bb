"""Named errors for what users can get wrong: each says what was expected, what came and what to do.

Programmer mistakes assert; they never use these classes.
"""

from __future__ import annotations


class CvdmError(Exception):
    """A mistake or failure that a user can mend.

    expected: what the platform needed, one clause.
    actual:   what it got instead, one clause.
    remedy:   what the user can do about it, one imperative sentence.
    """

    def __init__(self, expected: str, actual: str, remedy: str) -> None:
        super().__init__(expected, actual, remedy)
        self.expected = expected
        self.actual = actual
        self.remedy = remedy

    def __str__(self) -> str:
        return f"Expected {self.expected}; got {self.actual}. {self.remedy}"

    def as_dict(self) -> dict[str, str]:
        """The same message for programs: keys error, expected, actual, remedy."""
        return {
            "error": type(self).__name__,
            "expected": self.expected,
            "actual": self.actual,
            "remedy": self.remedy,
        }


class ConfigError(CvdmError):
    """A parameter is unknown, of the wrong type or out of range."""


class ImageError(CvdmError):
    """An image file cannot be read, or holds something the platform does not restore."""


class ExtentError(ImageError):
    """An image has more planes or pixels than what reads it takes."""


class DatasetError(CvdmError):
    """A dataset folder or its card is incomplete or inconsistent."""


class CheckpointError(CvdmError):
    """A checkpoint directory is missing, damaged, or fails its own golden replay."""


class TrainingError(CvdmError):
    """Training cannot start or cannot go on."""


class StorageError(CvdmError):
    """A disk is full or a folder cannot be written."""
