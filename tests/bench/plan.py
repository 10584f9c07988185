"""How good plans are: total tardiness against the optimum on small farms, and against plain greedy on a large one.

    plan.py problems FILE       writes the problems, one JSON a line, as odin._plan takes them
    plan.py judge FILE ANSWERS  reads the answers in the same order; prints "optimal RATIO OURS BEST" and "greedy RATIO OURS GREEDY"
The optimum is exact and shares nothing with the planner: dynamic programming over sets of jobs on each printer, then over how the jobs are shared out.
"""
import json
import random
import sys
from functools import reduce

SMALL, JOBS, PRINTERS = 60, 7, 3
CHANGEOVER = 900


def small(rng, tight):
    jobs = [{"seconds": 60 * rng.randint(10, 100), "due": 60 * rng.randint(15, tight), "needs": [rng.randrange(3)], "class": rng.randrange(2)} for _ in range(JOBS)]
    printers = [{"class": i % 2, "slots": [[i % 3]], "changeover": CHANGEOVER, "free_at": 60 * rng.randrange(40)} for i in range(PRINTERS)]
    return {"printers": printers, "eligible": [[0, 1], [0]], "jobs": jobs}


def large(rng):
    jobs = [{"seconds": rng.randint(600, 40_000), "due": rng.randint(0, 400_000), "needs": [rng.randrange(8)], "class": rng.randrange(10)} for _ in range(4000)]
    printers = [{"class": i % 5, "slots": [[i % 8]], "changeover": CHANGEOVER} for i in range(400)]
    return {"printers": printers, "eligible": [[i % 5, (i + 1) % 5, (i + 2) % 5] for i in range(10)], "jobs": jobs}


def problems():
    rng = random.Random(11)
    return [small(rng, (90, 150, 220)[n % 3]) for n in range(SMALL)] + [large(rng)]


def alone(problem, printer):
    """For every set of jobs the least tardiness when this printer makes all of them."""
    jobs, inf = problem["jobs"], float("inf")
    can = [printer["class"] in problem["eligible"][j["class"]] for j in jobs]
    total = [sum(j["seconds"] for i, j in enumerate(jobs) if s >> i & 1) for s in range(1 << len(jobs))]
    best = [inf] * (1 << len(jobs))
    best[0] = 0
    # What is loaded last and how often it was changed say when the printer is through with a set, whatever the order was.
    states = {0: {(printer["slots"][0][0], 0): 0}}
    for s in range(1 << len(jobs)):
        for (loaded, changes), late in states.get(s, {}).items():
            best[s] = min(best[s], late)
            for i, job in enumerate(jobs):
                if s >> i & 1 or not can[i]:
                    continue
                need = job["needs"][0]
                more = changes + (need != loaded)
                end = printer["free_at"] + total[s | 1 << i] + more * printer["changeover"]
                into = states.setdefault(s | 1 << i, {})
                into[need, more] = min(into.get((need, more), inf), late + max(0, end - job["due"]))
    return best


def share(a, b):
    """The least tardiness of every set when two (groups of) printers share it."""
    both = []
    for s in range(len(a)):
        part, least = s, a[s] + b[0]
        while part:
            part = (part - 1) & s
            least = min(least, a[part] + b[s ^ part])
        both.append(least)
    return both


def optimum(problem):
    return reduce(share, (alone(problem, p) for p in problem["printers"]))[-1]


def greedy(problem):
    """By due date, each job to the printer that would be through with it first."""
    free = [p.get("free_at", 0) for p in problem["printers"]]
    loaded = [p["slots"][0][0] for p in problem["printers"]]
    late = 0
    for job in sorted(problem["jobs"], key=lambda j: j["due"]):
        can = problem["eligible"][job["class"]]
        end, at = min((free[i] + (loaded[i] != job["needs"][0]) * p["changeover"] + job["seconds"], i) for i, p in enumerate(problem["printers"]) if p["class"] in can)
        free[at], loaded[at] = end, job["needs"][0]
        late += max(0, end - job["due"])
    return late


def checked(problem, answer):
    """The tardiness of an answer, worked out from its rows; a plan that leaves out, doubles or misplaces a job is no plan."""
    rows = answer["rows"]
    assert sorted(r[0] for r in rows) == list(range(len(problem["jobs"]))), "every job once"
    for job, printer, start, end, _ in rows:
        assert problem["printers"][printer]["class"] in problem["eligible"][problem["jobs"][job]["class"]], "where it may be"
        assert end - start == problem["jobs"][job]["seconds"], "as long as it takes"
    by_printer = {}
    for job, printer, start, end, _ in sorted(rows, key=lambda r: r[2]):
        free, loaded = by_printer.get(printer, (problem["printers"][printer].get("free_at", 0), problem["printers"][printer]["slots"][0][0]))
        need = problem["jobs"][job]["needs"][0]
        assert start >= free + (need != loaded) * CHANGEOVER, "never two at once, and time to change"
        by_printer[printer] = (end, need)
    return sum(max(0, end - problem["jobs"][job]["due"]) for job, _, _, end, _ in rows)


if sys.argv[1] == "problems":
    with open(sys.argv[2], "w") as out:
        out.writelines(json.dumps(p) + "\n" for p in problems())
else:
    asked = [json.loads(line) for line in open(sys.argv[2])]
    answers = [json.loads(line) for line in open(sys.argv[3])]
    assert len(asked) == len(answers) == SMALL + 1
    ours = [checked(p, a) for p, a in zip(asked, answers)]
    best = [optimum(p) for p in asked[:SMALL]]
    assert all(o >= b for o, b in zip(ours, best)), "an optimum that is beaten is none"
    plain = greedy(asked[SMALL])
    print(f"optimal {sum(ours[:SMALL]) / sum(best):.3f} {sum(ours[:SMALL]) / 3600:.1f} {sum(best) / 3600:.1f}")
    print(f"greedy {ours[SMALL] / plain:.3f} {ours[SMALL] / 3600:.0f} {plain / 3600:.0f}")
