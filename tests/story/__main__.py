"""`make story`: play every scene and say, line by line, what was expected and what happened.

Exit code 1 at the first scene that goes otherwise. What it leaves in the folder can be looked at afterwards.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from cvdm.errors import CvdmError
from story.scenes import PRESETS, SCENES, Scene
from story.world import CHECKOUT, OtherwiseError, World


def main() -> int:
    parser = argparse.ArgumentParser(prog="story", description=__doc__)
    parser.add_argument(
        "--folder", type=Path, default=CHECKOUT / "story", help="for the platform; emptied at the start"
    )
    folder = parser.parse_args().folder.resolve()
    began = time.monotonic()
    say(f"The platform of this story: {folder}; what its commands tell: {folder / 'story.log'}")
    world = World(folder)
    world.build(PRESETS)
    with world.up():
        for number, scene in enumerate(SCENES, 1):
            if not went_as_expected(world, scene, f"{number}/{len(SCENES)}"):
                return 1
    say(f"Every scene went as expected, {time.monotonic() - began:.0f} s in all.")
    say(f"Look at it: CVDM_HOME={world.home} cvdm up")
    return 0


def went_as_expected(world: World, scene: Scene, number: str) -> bool:
    began = time.monotonic()
    say(f"\n{number:>5}  {scene.title}\n       expected: {scene.expected}")
    try:
        happened = scene.play(world)
    except (OtherwiseError, CvdmError) as error:
        say(f"       OTHERWISE: {error}")
        return False
    say(f"       happened: {happened}  [{time.monotonic() - began:.0f} s]")
    return True


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
