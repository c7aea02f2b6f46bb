"""The rules in plain words: what each is about, and why it matters to a model that learns from the pairs."""

from __future__ import annotations

from dataclasses import dataclass

from flows.validation.quantities import QUANTITIES


@dataclass(frozen=True)
class Words:
    """About one check."""

    title: str
    """Headline of its findings; a measured quantity has its own label."""
    why: str


RULES = {
    "row-count": Words("Files changed during the check", "The report may not describe what is on the disk."),
    "complete": Words("Half of the pair is missing", "A model learns from input and target together."),
    "name": Words(
        "Name does not tell the field of view",
        "Without its field, nobody can keep a scene that was trained on out of the test.",
    ),
    "readable": Words("File cannot be read", "It is damaged, incomplete or of a kind that is not supported."),
    "finite": Words(
        "Pixels that are not numbers", "One NaN or infinite pixel makes a whole training step worthless."
    ),
    "plane": Words("More than one plane", "Models restore single planes; a stack is ambiguous."),
    "shape": Words(
        "Input and target differ in size", "Each pixel of the input must have its partner in the target."
    ),
    "size": Words("Too small an image", "Most measures cannot be taken, and no training patch fits."),
    "dtype": Words(
        "Another bit depth than the rest", "Rescaled intensities do not compare with those of other pairs."
    ),
    "constant": Words("Image of one grey value", "There is nothing to learn from it."),
    "pixel-size": Words(
        "Pixel size contradicts the card", "Structures of another magnification look like other structures."
    ),
    "numerical-aperture": Words(
        "Numerical aperture contradicts the card", "Another objective blurs in another way."
    ),
    "wavelength": Words("Wavelength contradicts the card", "It may be another channel."),
    "channel": Words("Channel contradicts the card", "Another label shows other structures."),
    "pixel-size-of-pair": Words(
        "Input and target differ in pixel size", "They cannot lie on each other pixel by pixel."
    ),
    "metadata": Words(
        "The card leaves optics open", "Files of another magnification or channel would go unnoticed."
    ),
    "field-in-one-split": Words(
        "Field of view in several splits", "A model would be tested on what it learned from."
    ),
    "leak": Words(
        "The same image in two splits",
        "A model would be tested on what it learned from, and look better than it is.",
    ),
    "copy": Words("The same input twice", "A copy teaches nothing new, and counts double."),
    "copied-target": Words("Two fields with one target", "They count as two but tell of one."),
    "overlap-across-splits": Words(
        "The same scene in two splits",
        "A model would be tested on what it learned from, and look better than it is.",
    ),
    "overlap": Words(
        "Fields of view that overlap", "They count as independent although they show the same structures."
    ),
    "shared-target": Words(
        "Several inputs share a target", "This is as it should be where one field was captured repeatedly."
    ),
    "splits": Words(
        "A split without fields of view",
        "Training, its control, the calibration and the final test each need fields of their own.",
    ),
}

MEASURES = {
    "saturated": "Saturated pixels have lost their intensity; a model learns a ceiling that is not there.",
    "black": "Pixels clipped at the dark end have lost the background and its noise.",
    "grey_levels": "Few grey levels: intensities were rescaled or compressed, fine differences are gone.",
    "snr_db": "An input that is nothing but noise teaches a model to invent.",
    "snr_gain_db": "The target is what a model strives for: it must be the better one of the two.",
    "focus_loss": "A blurred image among sharp ones teaches blur, or sharpness that is invented.",
    "shift_px": "A model learns to move what it sees, or blurs because it cannot know where things belong.",
    "rotation_deg": "Away from the centre a rotation is a shift.",
    "scale_percent": "Away from the centre another magnification is a shift.",
    "registration": "Too little common structure: the two images may not show the same field of view.",
    "rank_correlation": "What is brighter in the input should be brighter in the target too.",
    "curvature": "A curved relation means gamma or another contrast that is not linear in one of the two.",
    "separate_stretch": "Each image was stretched on its own: their intensities do not compare.",
    "hot_pixels": "Single bright pixels are a camera's, not the sample's; a model may learn to paint them.",
    "dropped_lines": "Lost lines hold no data; a model may learn to paint them.",
    "stagger_px": "A bidirectional scan out of phase doubles every edge.",
    "signal_share": "An empty field teaches nothing, and makes averages look good.",
    "background_drift": "Another offset or stray light makes sessions differ where the samples do not.",
    "vignetting": "A model learns the lamp's fall-off along with the sample.",
}

NOT_MEASURED = {
    "focus_loss": "needs at least eight fields of view to compare",
    "background_drift": "needs at least two sessions of three fields of view to compare",
    "vignetting": "needs at least two sessions with many fields of view to compare",
    "separate_stretch": "concerns only pairs in which both images fill their file's range exactly",
}
"""Why a quantity may be measurable in no pair at all."""


def title_of(check: str) -> str:
    """Headline of a rule that is not about a measured quantity."""
    return RULES[check].title if check in RULES else check.replace("-", " ").capitalize()


def why_of(check: str) -> str:
    """Why a rule matters; empty where nothing is known about it."""
    if check in RULES:
        return RULES[check].why
    return MEASURES.get(check.replace("-", "_"), "")


def threshold_title(name: str) -> str:
    """Of an entry of the policy, in the words of its quantity."""
    other = {
        "metadata_tolerance": "Tolerance of a file's metadata against the card",
        "near_duplicate_score": "Likeness from which two targets count as the same scene",
    }
    titles = {quantity.name: quantity.title for quantity in QUANTITIES}
    return titles.get(name) or other.get(name) or name.replace("_", " ")
