# SPDX-License-Identifier: Apache-2.0
"""Commands that are killed or stopped at random moments."""

from __future__ import annotations

import random
import signal
import time
from functools import partial

from scripts.measure.faults.bench import COMMANDS, Bench, Outcome, fault, numbered, sentence_problems
from scripts.measure.faults.process import Started

KILLS = {"train": 12, "evaluate": 6, "inference": 6, "report": 6, "check": 6, "export": 4, "package": 4}
SAME = "the same command again leaves what an undisturbed one leaves, bit by bit, and no draft"


def _kill(bench: Bench, command: str, number: int, count: int, codes: tuple[int, ...]) -> Outcome:
    """Sends a command a signal at moments spread over its duration, and repeats it."""
    outcome, name = Outcome(), f"{command} {signal.Signals(number).name}"
    draw = random.Random(name)
    length = bench.seconds(command)
    moments = []
    for place, folder in enumerate(numbered(name, count)):
        seconds = (place + draw.random()) / count * length
        trial = bench.place(folder, command)
        started = Started(trial, COMMANDS[command].split())
        code = started.wait_for(seconds)
        ended = code is not None
        started.send(number)
        started.wait()
        found = [f"a process was left: {one}" for one in started.left_behind(120)]
        if number != signal.SIGKILL and not ended:
            found += sentence_problems(started, codes=(0, *codes))
        moments.append(f"{seconds:.2f}" + ("e" if ended else ""))
        outcome.add(found + bench.problems(trial, command))
        temporary = [path.name for path in (trial / "tmp").iterdir()]
        if temporary:
            outcome.notes.append(f"left in TMPDIR: {', '.join(sorted(temporary))}")
    outcome.notes.insert(0, f"at {', '.join(moments)} of {length:.1f} s (e: had ended)")
    return outcome


for command, count in KILLS.items():
    kill = partial(_kill, command=command, number=signal.SIGKILL, count=count, codes=(-9,))
    fault(f"{command}: kill -9", f"`kill -9` at {count} moments spread over {command}", SAME)(kill)
    if command == "package":  # a program for developers
        continue
    stop = partial(_kill, command=command, number=signal.SIGINT, count=2, codes=(130,))
    fault(f"{command}: Ctrl-C", f"SIGINT at 2 moments of {command}", f"exit code 130, no stack; {SAME}")(stop)
fault("train: SIGTERM", "SIGTERM at 4 moments of training", f"exit code 143 once it trains; {SAME}")(
    partial(_kill, command="train", number=signal.SIGTERM, count=4, codes=(143, -15))
)


@fault("train: SIGSTOP", "training is frozen for 3 s at 3 moments and goes on", "the result of an undisturbed run")
def _freeze(bench: Bench) -> Outcome:
    outcome = Outcome()
    for place, folder in enumerate(numbered("frozen", 3)):
        trial = bench.place(folder)
        started = Started(trial, COMMANDS["train"].split())
        started.wait_for((place + 0.5) / 3 * bench.seconds("train"))
        started.send(signal.SIGSTOP)
        time.sleep(3)
        started.send(signal.SIGCONT)
        started.wait()
        outcome.add(sentence_problems(started, codes=(0,)) + bench.problems(trial, "train"))
    return outcome
