"""The noise schedule: how fast each pixel loses its signal, learned with the model.

| symbol          | meaning                                                                     |
| --------------- | --------------------------------------------------------------------------- |
| t in [0, 1]     | diffusion time, 0 clean, 1 noise                                            |
| gamma(t, x)     | signal power per pixel; y_t = sqrt(gamma) y + sqrt(1 - gamma) eps           |
| u(t, x)         | log signal-to-noise ratio, log(gamma / (1 - gamma))                         |
| beta(t, x)      | noise rate, -d log gamma / dt                                               |

(In Kingma et al. 2021 gamma is -u; in k-diffusion it is the churn. Neither is meant here.)

One object gives gamma and its first two time derivatives in closed form, so beta is the exact
derivative, the consistency penalty L_beta of CVDM (arXiv 2312.02246, eq. 13) vanishes by construction,
and training and sampling read the same gamma. A schedule has two verbs: `paths(x)` reads the
observation once, `at(t, paths)` evaluates any time. Every schedule falls strictly in t.
"""

from __future__ import annotations

from cvdm.config import ScheduleConfig
from cvdm.schedule.curves import ScheduleCurves, ScheduleExtremes, schedule_curves, schedule_extremes
from cvdm.schedule.fixed import CosineSchedule, LinearSchedule, LogSnrLinearSchedule
from cvdm.schedule.interface import Schedule, SchedulePoint
from cvdm.schedule.learned import PinnedSchedule, SeparableSchedule

__all__ = [
    "Schedule",
    "ScheduleCurves",
    "ScheduleExtremes",
    "SchedulePoint",
    "build_schedule",
    "schedule_curves",
    "schedule_extremes",
]


def build_schedule(config: ScheduleConfig, inputs: int = 1) -> Schedule:
    """The schedule named by `config.kind`, for observations of so many channels."""
    kinds: dict[str, type[Schedule]] = {
        "pinned": PinnedSchedule,
        "separable": SeparableSchedule,
        "linear": LinearSchedule,
        "cosine": CosineSchedule,
        "log-snr-linear": LogSnrLinearSchedule,
    }
    return kinds[config.kind](config, inputs)
