"""The gate: may a candidate replace the champion? A pure decision, with every number that it rests on.

The unit of evidence is the field of view. The tests, in the order in which reasons are given:

1. unseen       no test field was learned from; scores on such a field mean nothing.
2. finite       every score of the candidate is a finite number; NaN never passes.
3. fields       fewer test fields than `min_fields` allow no promotion and no comparison with the champion; a
                candidate that fails nothing else is `undecided`, and only a person can promote it.
4. looks        after `max_looks` candidates judged on the same test fields, the best one may have won by
                chance: `undecided` until fields are added or rotated.
5. coverage     the calibrated interval covers what policy demands, on fields that calibration never saw.
6. schedule     the learned noise schedule is finite, falls in time, and reaches both ends.
7. baselines    the mean over fields of PSNR and SSIM (after intensity fit) beats every baseline. The
                regression mean is a special case: it minimises the squared error itself, and the mean of K
                draws carries up to 1/K of the posterior variance on top, which costs a calibrated
                posterior up to 10 log10(1 + 1/K) dB. So on PSNR and SSIM the candidate must be no worse
                than that, plus a margin, and what draws are for is tested where it shows: CRPS, against
                the regression mean's absolute error, and against the regression mean with one calibrated
                spread for all pixels.
8. champion     paired by field, exact sign-flip test, one-sided at `alpha`: superior on CRPS, and
                non-inferior within a margin on PSNR, SSIM, width of the interval, FRC resolution and
                forward-model residual, the last two where they can be measured. All must hold (an
                intersection-union test; Berger 1982, Technometrics 24, 295-300), so `alpha` needs no
                correction for their number.
9. strata       CRPS is nowhere worse than the champion's beyond a margin: not for one kind of structure,
                not for dim or bright inputs, not for one session.

A failure of 1, 2 or 5 to 7, however few the fields, rejects. So does a significant loss in 8 or 9; but any
one of them would, which is a union of tests: their p-values are corrected together (Holm 1979). What is
significant in neither direction is `undecided`, and so is an equal model.

policy       what is demanded: section `gate` of params.yaml
background   what is known beside the scores: looks, learned fields, strata
merits       tests 1 to 7, of the candidate by itself
comparing    tests 8 and 9, against the champion
quantities   what is compared: direction, unit, margin
holm         one correction for many tests
strata       kinds of fields that are looked at apart
decision     all tests to one verdict
outcome      a test, a decision
page/        the decision for people
"""

from __future__ import annotations

from flows.gate.background import Background
from flows.gate.decision import decide
from flows.gate.outcome import VERSUS_CHAMPION, Decision, GateTest, Verdict
from flows.gate.policy import GatePolicy, load_policy
from flows.gate.strata import strata_of

__all__ = [
    "VERSUS_CHAMPION",
    "Background",
    "Decision",
    "GatePolicy",
    "GateTest",
    "Verdict",
    "decide",
    "load_policy",
    "strata_of",
]
