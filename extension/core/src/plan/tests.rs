//! Plans by hand, against brute force on small farms, and on a large one.

use super::*;

fn one(jobs: Value) -> Value {
    json!({ "printers": [{ "class": 0 }], "eligible": [[0]], "jobs": jobs })
}

#[test]
fn an_urgent_job_goes_first() {
    let input = one(json!([{ "seconds": 100, "due": 1000 }, { "seconds": 100, "due": 100 }]));
    let answer = plan(&input).unwrap();
    assert_eq!(answer["tardiness"], 0);
    assert_eq!(answer["rows"][0][0], 1);
}

#[test]
fn a_job_moved_by_hand_wins_over_lateness() {
    let mut input = one(json!([{ "seconds": 100, "due": 1000 }, { "seconds": 100, "due": 100 }]));
    input["by_hand"] = json!([0]);
    let answer = plan(&input).unwrap();
    assert_eq!(answer["rows"][0][0], 0);
    assert_eq!(answer["tardiness"], 100);
}

#[test]
fn same_material_is_kept_together() {
    let input = json!({ "printers": [{ "class": 0, "slots": [[0]], "changeover": 600 }], "eligible": [[0]],
        "jobs": [{ "seconds": 60, "needs": [0] }, { "seconds": 60, "needs": [1] }, { "seconds": 60, "needs": [0] }, { "seconds": 60, "needs": [1] }] });
    assert_eq!(plan(&input).unwrap()["changeovers"], 1);
}

#[test]
fn nothing_starts_in_a_window_and_what_fits_nowhere_is_told() {
    let input = json!({ "printers": [{ "class": 0, "windows": [[0, 500]] }], "eligible": [[0], []],
        "jobs": [{ "seconds": 10, "class": 0 }, { "seconds": 10, "class": 1 }] });
    let answer = plan(&input).unwrap();
    assert_eq!(answer["rows"], json!([[0, 0, 500, 510, 0]]));
    assert_eq!(answer["homeless"], json!([1]));
}

#[test]
fn more_needs_than_a_word_has_bits_are_told_apart() {
    let printers: Vec<Value> = (0..130)
        .map(|i| json!({ "class": 0, "slots": [[i]], "changeover": 600 }))
        .collect();
    let jobs: Vec<Value> = (0..130)
        .map(|i| json!({ "seconds": 60, "needs": [129 - i] }))
        .collect();
    let answer = plan(&json!({ "printers": printers, "eligible": [[0]], "jobs": jobs })).unwrap();
    assert_eq!(answer["changeovers"], 0);
    for row in answer["rows"].as_array().unwrap() {
        assert_eq!(row[0].as_u64().unwrap() + row[1].as_u64().unwrap(), 129);
    }
    let input = json!({ "printers": [{ "class": 0 }], "eligible": [[0]], "jobs": [{ "seconds": 60, "needs": [20_001] }] });
    assert!(plan(&input).unwrap_err().contains("20001"));
}

#[test]
fn what_was_loaded_for_one_need_serves_those_it_covers() {
    // Need 1 is red PLA, need 0 any PLA: red serves both, any PLA is no red.
    let jobs = |a: u32, b: u32| {
        json!({ "printers": [{ "class": 0, "slots": [[]], "changeover": 600 }], "eligible": [[0]], "covers": [[0], [0, 1]],
            "jobs": [{ "seconds": 60, "needs": [a] }, { "seconds": 60, "needs": [b] }] })
    };
    assert_eq!(plan(&jobs(1, 0)).unwrap()["changeovers"], 1);
    assert_eq!(plan(&jobs(0, 0)).unwrap()["changeovers"], 1);
    let mut hand = jobs(0, 1);
    hand["by_hand"] = json!([0, 1]);
    assert_eq!(plan(&hand).unwrap()["changeovers"], 2);
}

/// Every order of the jobs on every printer, by brute force.
fn optimum(problem: &Problem, left: &[usize], plan: &mut Plan) -> i64 {
    if left.is_empty() {
        let mut sum = 0;
        for (m, queue) in plan.iter().enumerate() {
            problem.walk(m, queue, |job, at| {
                sum += (at.end - problem.jobs[job].due.unwrap()).max(0);
            });
        }
        return sum;
    }
    let mut best = i64::MAX;
    for i in 0..left.len() {
        let mut rest = left.to_vec();
        let job = rest.remove(i);
        for m in 0..plan.len() {
            plan[m].push(job);
            best = best.min(optimum(problem, &rest, plan));
            plan[m].pop();
        }
    }
    best
}

#[test]
fn small_plans_are_within_five_percent_of_the_optimum() {
    let mut seed: u64 = 7;
    let mut next = |below: u64| {
        seed = seed
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (seed >> 33) % below
    };
    let (mut ours, mut best) = (0, 0);
    for _ in 0..40 {
        let jobs: Vec<Value> = (0..6)
            .map(|_| json!({ "seconds": 60 * (10 + next(90)), "due": 60 * (20 + next(150)), "needs": [next(2)] }))
            .collect();
        let input = json!({ "printers": [{ "class": 0, "slots": [[0]], "changeover": 900 }, { "class": 0, "slots": [[1]], "changeover": 900 }], "eligible": [[0]], "jobs": jobs });
        let problem = Problem::read(&input).unwrap();
        ours += plan(&input).unwrap()["tardiness"].as_i64().unwrap();
        best += optimum(&problem, &[0, 1, 2, 3, 4, 5], &mut vec![Vec::new(); 2]);
    }
    assert!(best > 0);
    assert!(ours as f64 <= 1.05 * best as f64, "{ours} against {best}");
}

#[test]
fn a_large_farm_is_planned_in_seconds() {
    let printers: Vec<Value> = (0..1000)
        .map(|i| json!({ "class": i % 5, "slots": [[i % 8]], "changeover": 900 }))
        .collect();
    let jobs: Vec<Value> = (0..10_000u64)
        .map(|i| json!({ "seconds": 600 + (i * 7919) % 40_000, "due": (i * 104_729) % 400_000, "class": i % 10, "needs": [i % 8] }))
        .collect();
    let eligible: Vec<Value> = (0..10)
        .map(|i| json!([i % 5, (i + 1) % 5, (i + 2) % 5]))
        .collect();
    let input = json!({ "printers": printers, "jobs": jobs, "eligible": eligible });
    let answer = plan(&input).unwrap();
    assert_eq!(answer["rows"].as_array().unwrap().len(), 10_000);
    let ours = answer["tardiness"].as_i64().unwrap();
    // What a person with a list does: one job after the other, each to the printer that is through with it first.
    let problem = Problem::read(&input).unwrap();
    let greedy = |order: Vec<usize>| {
        let mut queues: Plan = vec![Vec::new(); problem.printers.len()];
        let mut state: Vec<_> = problem
            .printers
            .iter()
            .map(|p| (p.free_at, p.slots))
            .collect();
        problem.append(&mut queues, &mut state, &order);
        let mut sum = 0;
        for (m, queue) in queues.iter().enumerate() {
            problem.walk(m, queue, |job, at| {
                sum += (at.end - problem.jobs[job].due.unwrap()).max(0);
            });
        }
        sum
    };
    let as_they_came = greedy((0..10_000).collect());
    let mut by_due: Vec<usize> = (0..10_000).collect();
    by_due.sort_by_key(|j| problem.jobs[*j].due);
    let by_due = greedy(by_due);
    println!(
        "tardiness in hours: planned {}, greedy by due date {}, greedy as they came {}",
        ours / 3600,
        by_due / 3600,
        as_they_came / 3600
    );
    assert!(ours <= by_due && ours <= as_they_came);
}
