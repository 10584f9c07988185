//! Which job on which printer when. Jobs with a place by hand come first; the others are ordered and placed by several
//! rules, the best plan is improved by moving and swapping jobs until nothing gets better. Same input, same plan: no clock, no chance.

use serde_json::{json, Value};

mod slots;
use slots::{Contents, Slots};

struct Printer {
    free_at: i64,
    class: usize,
    slots: Slots,
    changeover: i64,
    wear: f64,
    /// Hours in which nothing may start, sorted.
    windows: Vec<(i64, i64)>,
}

struct Job {
    seconds: i64,
    due: Option<i64>,
    /// For a job without due date: when its priority wants it done.
    wanted: i64,
    weight: f64,
    class: usize,
    needs: Vec<u32>,
    pin: Option<usize>,
}

#[derive(Clone, Copy, Default)]
struct Placed {
    start: i64,
    end: i64,
    changeovers: i64,
}

struct Problem {
    printers: Vec<Printer>,
    jobs: Vec<Job>,
    /// For each job class the printer classes that can take it.
    eligible: Vec<Vec<bool>>,
    contents: Contents,
    /// What is in a slot that was loaded for a need.
    covers: Vec<u16>,
}

type Plan = Vec<Vec<usize>>;

/// Moves tried in all, for any size: keeps the answer within seconds.
const EFFORT: usize = 400_000;

/// Different needs of all jobs together: more than any farm has filaments; a plan stays below 100 MB.
const MOST_NEEDS: u32 = 20_000;

fn number(v: &Value, key: &str) -> Option<i64> {
    v.get(key)
        .and_then(|x| x.as_i64().or_else(|| x.as_f64().map(|f| f as i64)))
}

fn list<'a>(v: &'a Value, key: &str) -> &'a [Value] {
    v.get(key)
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

fn rows(values: &[Value]) -> Vec<Vec<u32>> {
    values
        .iter()
        .map(|row| ids(row.as_array().map_or(&[], Vec::as_slice)))
        .collect()
}

fn ids(values: &[Value]) -> Vec<u32> {
    values
        .iter()
        .filter_map(|x| x.as_u64().map(|n| n as u32))
        .collect()
}

impl Problem {
    fn read(input: &Value) -> Result<Problem, String> {
        let loaded: Vec<Vec<Vec<u32>>> = list(input, "printers")
            .iter()
            .map(|p| rows(list(p, "slots")))
            .collect();
        let covering = rows(list(input, "covers"));
        let jobs = list(input, "jobs")
            .iter()
            .map(|j| Job {
                seconds: number(j, "seconds").unwrap_or(0).max(1),
                due: number(j, "due"),
                wanted: number(j, "wanted").unwrap_or(0),
                weight: j.get("weight").and_then(Value::as_f64).unwrap_or(1.0),
                class: number(j, "class").unwrap_or(0).max(0) as usize,
                needs: ids(list(j, "needs")),
                pin: number(j, "pin").map(|n| n as usize),
            })
            .collect::<Vec<_>>();
        let most_need = loaded
            .iter()
            .flatten()
            .chain(&covering)
            .flatten()
            .chain(jobs.iter().flat_map(|j| &j.needs))
            .fold(covering.len() as u32, |most, need| most.max(*need));
        if most_need > MOST_NEEDS {
            return Err(format!("need {most_need} is beyond {MOST_NEEDS}"));
        }
        let mut contents = Contents::new(most_need);
        let mut printers = Vec::with_capacity(loaded.len());
        for (p, held) in list(input, "printers").iter().zip(loaded) {
            let mut slots = Slots::none();
            for content in held {
                slots.push(contents.number(content)?);
            }
            printers.push(Printer {
                free_at: number(p, "free_at").unwrap_or(0),
                class: number(p, "class").unwrap_or(0).max(0) as usize,
                slots,
                changeover: number(p, "changeover").unwrap_or(0).max(0),
                wear: p.get("wear").and_then(Value::as_f64).unwrap_or(0.0),
                windows: list(p, "windows")
                    .iter()
                    .filter_map(|w| Some((w.get(0)?.as_i64()?, w.get(1)?.as_i64()?)))
                    .collect(),
            });
        }
        let printer_classes = printers.iter().map(|p| p.class + 1).max().unwrap_or(0);
        let eligible = list(input, "eligible")
            .iter()
            .map(|row| {
                let mut can = vec![false; printer_classes];
                for c in ids(row.as_array().map_or(&[], Vec::as_slice)) {
                    if let Some(slot) = can.get_mut(c as usize) {
                        *slot = true;
                    }
                }
                can
            })
            .collect::<Vec<_>>();
        if let Some(j) = jobs.iter().find(|j| j.class >= eligible.len()) {
            return Err(format!("job class {} has no row in eligible", j.class));
        }
        let mut covers = Vec::with_capacity(most_need as usize + 1);
        for need in 0..=most_need {
            let content = covering.get(need as usize).cloned();
            covers.push(contents.number(content.unwrap_or_else(|| vec![need]))?);
        }
        Ok(Problem {
            printers,
            jobs,
            eligible,
            contents,
            covers,
        })
    }

    fn can(&self, job: usize, printer: usize) -> bool {
        let j = &self.jobs[job];
        j.pin.is_none_or(|p| p == printer) && self.eligible[j.class][self.printers[printer].class]
    }

    fn in_slots(&self, slots: &Slots, need: u32) -> bool {
        slots
            .all()
            .iter()
            .any(|c| self.contents.satisfies(*c, need))
    }

    /// Loads what a job needs; how many slots had to change.
    fn load(&self, slots: &mut Slots, needs: &[u32]) -> i64 {
        // Most jobs need one thing, and most of those find it.
        if let [need] = needs {
            if self.in_slots(slots, *need) {
                return 0;
            }
        }
        let mut used = [usize::MAX; 16];
        let mut changes = 0;
        let mut taken = 0;
        let mut missing = [0; 16];
        for need in needs.iter().take(16) {
            let found = (0..slots.len()).find(|i| {
                !used[..taken].contains(i) && self.contents.satisfies(slots.all()[*i], *need)
            });
            match found {
                Some(i) => {
                    used[taken] = i;
                    taken += 1;
                }
                None => {
                    missing[changes] = *need;
                    changes += 1;
                }
            }
        }
        for need in &missing[..changes] {
            let content = self.covers[*need as usize];
            match (0..slots.len()).find(|i| !used[..taken].contains(i)) {
                Some(i) => {
                    // The slot that was changed goes last: the next change takes another one.
                    slots.remove(i);
                    slots.push(content);
                    for u in used[..taken].iter_mut() {
                        if *u > i {
                            *u -= 1;
                        }
                    }
                    if taken < 16 {
                        used[taken] = slots.len() - 1;
                        taken += 1;
                    }
                }
                None => slots.push(content),
            }
        }
        changes as i64
    }

    fn allowed(&self, printer: usize, mut at: i64) -> i64 {
        for (from, until) in &self.printers[printer].windows {
            if at >= *from && at < *until {
                at = *until;
            }
        }
        at
    }

    fn place(&self, printer: usize, free: i64, slots: &mut Slots, job: usize) -> Placed {
        let j = &self.jobs[job];
        let changeovers = self.load(slots, &j.needs);
        let start = self.allowed(
            printer,
            free + changeovers * self.printers[printer].changeover,
        );
        Placed {
            start,
            end: start + j.seconds,
            changeovers,
        }
    }

    /// What a job costs where it ended up: lateness first, then changeovers, then simply being early.
    fn cost(&self, printer: usize, job: usize, at: Placed) -> f64 {
        let j = &self.jobs[job];
        let late = match j.due {
            Some(due) => j.weight * (at.end - due).max(0) as f64,
            None => 0.05 * j.weight * (at.end - j.wanted).max(0) as f64,
        };
        late + 0.02 * (at.changeovers * self.printers[printer].changeover) as f64
            + 0.002 * at.end as f64
    }

    fn walk(&self, printer: usize, queue: &[usize], mut see: impl FnMut(usize, Placed)) {
        let p = &self.printers[printer];
        let mut free = p.free_at;
        let mut slots = p.slots;
        for job in queue {
            let at = self.place(printer, free, &mut slots, *job);
            free = at.end;
            see(*job, at);
        }
    }

    fn queue_cost(&self, printer: usize, queue: &[usize]) -> f64 {
        let mut sum = 0.0;
        self.walk(printer, queue, |job, at| sum += self.cost(printer, job, at));
        sum
    }

    /// Jobs in this order, each where it ends first; wear decides between equals.
    fn append(&self, plan: &mut Plan, state: &mut [(i64, Slots)], order: &[usize]) -> Vec<usize> {
        let mut homeless = Vec::new();
        for job in order {
            let j = &self.jobs[*job];
            let mut best: Option<(f64, usize)> = None;
            for (printer, (p, (free, slots))) in self.printers.iter().zip(state.iter()).enumerate()
            {
                // It cannot end sooner than this, whatever is loaded; most printers fall out here.
                let soonest = (*free + j.seconds) as f64;
                if best.is_some_and(|(b, _)| soonest >= b) || !self.can(*job, printer) {
                    continue;
                }
                let lacking = j
                    .needs
                    .iter()
                    .filter(|n| !self.in_slots(slots, **n))
                    .count() as i64;
                let end = self.allowed(printer, free + lacking * p.changeover) + j.seconds;
                let score = end as f64 + 0.5 * (lacking * p.changeover) as f64 + 0.001 * p.wear;
                if best.is_none_or(|(b, _)| score < b) {
                    best = Some((score, printer));
                }
            }
            match best {
                Some((_, printer)) => {
                    let (free, slots) = &mut state[printer];
                    *free = self.place(printer, *free, slots, *job).end;
                    plan[printer].push(*job);
                }
                None => homeless.push(*job),
            }
        }
        homeless
    }

    fn deadline(&self, job: usize) -> i64 {
        self.jobs[job].due.unwrap_or(self.jobs[job].wanted)
    }

    fn solve(&self, by_hand: &[usize], others: &[usize]) -> (Plan, Vec<usize>) {
        let mut base: Plan = vec![Vec::new(); self.printers.len()];
        let mut start: Vec<(i64, Slots)> =
            self.printers.iter().map(|p| (p.free_at, p.slots)).collect();
        let mut homeless = self.append(&mut base, &mut start, by_hand);
        let locked: Vec<usize> = base.iter().map(Vec::len).collect();

        let mut orders = vec![others.to_vec()];
        let mut sorted = |key: &dyn Fn(usize) -> i64| {
            let mut order = others.to_vec();
            order.sort_by_key(|j| (key(*j), *j));
            orders.push(order);
        };
        sorted(&|j| self.deadline(j));
        sorted(&|j| self.deadline(j) - self.jobs[j].seconds);
        if others.len() <= 3000 {
            sorted(&|j| self.jobs[j].seconds);
            sorted(&|j| self.deadline(j) + self.jobs[j].seconds);
        }
        let mut best: Option<(f64, Plan, Vec<usize>)> = None;
        for order in orders {
            let mut plan = base.clone();
            let mut state = start.clone();
            let left = self.append(&mut plan, &mut state, &order);
            let cost: f64 = (0..plan.len()).map(|m| self.queue_cost(m, &plan[m])).sum();
            if best.as_ref().is_none_or(|(b, _, _)| cost < *b) {
                best = Some((cost, plan, left));
            }
        }
        let (_, mut plan, left) = best.unwrap_or((0.0, base, Vec::new()));
        homeless.extend(left);
        let mut effort = EFFORT;
        self.improve(&mut plan, &locked, &mut effort);
        self.shake(&mut plan, &locked, &mut effort);
        (plan, homeless)
    }

    /// Takes the worst jobs out and puts each where the whole costs least, until nothing gets better or the effort is spent.
    fn improve(&self, plan: &mut Plan, locked: &[usize], effort: &mut usize) {
        let mut costs: Vec<f64> = (0..plan.len())
            .map(|m| self.queue_cost(m, &plan[m]))
            .collect();
        loop {
            let mut worst: Vec<(f64, usize, usize)> = Vec::new();
            for (m, queue) in plan.iter().enumerate() {
                let mut n = 0;
                self.walk(m, queue, |job, at| {
                    let c = self.cost(m, job, at);
                    if n >= locked[m] {
                        worst.push((c, m, job));
                    }
                    n += 1;
                });
            }
            worst.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.2.cmp(&b.2)));
            let mut better = false;
            for (_, m, job) in worst {
                if *effort == 0 {
                    return;
                }
                let Some(at) = plan[m].iter().position(|j| *j == job) else {
                    continue;
                };
                better |= self.move_job(plan, &mut costs, locked, m, at, effort);
            }
            if !better {
                return;
            }
        }
    }

    /// The best place for one job: every position in its own queue, and in others as far as the effort allows; also swaps.
    fn move_job(
        &self,
        plan: &mut Plan,
        costs: &mut [f64],
        locked: &[usize],
        m: usize,
        at: usize,
        effort: &mut usize,
    ) -> bool {
        let job = plan[m][at];
        let mut rest = plan[m].clone();
        rest.remove(at);
        let rest_cost = self.queue_cost(m, &rest);
        let mut best: Option<(f64, usize, usize)> = None;
        let mut consider = |gain: f64, to: usize, place: usize| {
            if gain > 1e-6 && best.is_none_or(|(g, _, _)| gain > g) {
                best = Some((gain, to, place));
            }
        };
        for to in 0..plan.len() {
            if !self.can(job, to) {
                continue;
            }
            let queue = if to == m { &rest } else { &plan[to] };
            let before = if to == m {
                costs[m]
            } else {
                costs[m] + costs[to]
            };
            let keep = if to == m { 0.0 } else { rest_cost };
            let mut trial = Vec::with_capacity(queue.len() + 1);
            for place in locked[to]..=queue.len() {
                if *effort == 0 {
                    break;
                }
                *effort -= 1;
                trial.clear();
                trial.extend_from_slice(&queue[..place]);
                trial.push(job);
                trial.extend_from_slice(&queue[place..]);
                consider(before - keep - self.queue_cost(to, &trial), to, place);
            }
        }
        let mut swap: Option<(f64, usize, usize)> = None;
        for to in 0..plan.len() {
            for place in locked[to]..plan[to].len() {
                let other = plan[to][place];
                if to == m || *effort == 0 || !self.can(job, to) || !self.can(other, m) {
                    continue;
                }
                *effort -= 1;
                let (mut a, mut b) = (plan[m].clone(), plan[to].clone());
                a[at] = other;
                b[place] = job;
                let gain = costs[m] + costs[to] - self.queue_cost(m, &a) - self.queue_cost(to, &b);
                if gain > 1e-6 && swap.is_none_or(|(g, _, _)| gain > g) {
                    swap = Some((gain, to, place));
                }
            }
            if plan.len() * plan[m].len() > 2000 {
                break;
            }
        }
        match (best, swap) {
            (Some((g, ..)), Some((s, to, place))) if s > g => {
                self.swap(plan, costs, (m, at), (to, place))
            }
            (None, Some((_, to, place))) => self.swap(plan, costs, (m, at), (to, place)),
            (Some((_, to, place)), _) => {
                plan[m].remove(at);
                plan[to].insert(place, job);
                costs[m] = self.queue_cost(m, &plan[m]);
                costs[to] = self.queue_cost(to, &plan[to]);
            }
            (None, None) => return false,
        }
        true
    }

    fn swap(&self, plan: &mut Plan, costs: &mut [f64], a: (usize, usize), b: (usize, usize)) {
        let (x, y) = (plan[a.0][a.1], plan[b.0][b.1]);
        plan[a.0][a.1] = y;
        plan[b.0][b.1] = x;
        costs[a.0] = self.queue_cost(a.0, &plan[a.0]);
        costs[b.0] = self.queue_cost(b.0, &plan[b.0]);
    }

    /// Small plans: leave a local best by moving a few jobs blindly, improve again, keep what is better.
    fn shake(&self, plan: &mut Plan, locked: &[usize], effort: &mut usize) {
        let free: usize = plan.iter().zip(locked).map(|(q, l)| q.len() - l).sum();
        if !(2..=400).contains(&free) {
            return;
        }
        let total = |p: &Plan| -> f64 { (0..p.len()).map(|m| self.queue_cost(m, &p[m])).sum() };
        let mut best = total(plan);
        let mut seed: u64 = 0x9E37_79B9_7F4A_7C15;
        let mut next = |below: usize| -> usize {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed % below.max(1) as u64) as usize
        };
        while *effort > 0 {
            let mut trial = plan.clone();
            for _ in 0..3 {
                let from = next(trial.len());
                if trial[from].len() <= locked[from] {
                    continue;
                }
                let at = locked[from] + next(trial[from].len() - locked[from]);
                let to = next(trial.len());
                if !self.can(trial[from][at], to) {
                    continue;
                }
                let job = trial[from].remove(at);
                let place = locked[to] + next(trial[to].len() - locked[to] + 1);
                trial[to].insert(place, job);
            }
            *effort = effort.saturating_sub(1);
            self.improve(&mut trial, locked, effort);
            let cost = total(&trial);
            if cost + 1e-6 < best {
                best = cost;
                *plan = trial;
            }
        }
    }
}

/// Input and answer are JSON; times are seconds from now. The answer's rows are [job, printer, start, end, changeovers], numbers being places in the input.
pub fn plan(input: &Value) -> Result<Value, String> {
    let problem = Problem::read(input)?;
    let by_hand: Vec<usize> = ids(list(input, "by_hand"))
        .into_iter()
        .map(|n| n as usize)
        .collect();
    if let Some(n) = by_hand.iter().find(|n| **n >= problem.jobs.len()) {
        return Err(format!("by_hand names job {n}, which is not there"));
    }
    let others: Vec<usize> = (0..problem.jobs.len())
        .filter(|j| !by_hand.contains(j))
        .collect();
    let (plan, homeless) = problem.solve(&by_hand, &others);
    let horizon = number(input, "horizon").unwrap_or(i64::MAX);
    let mut rows = Vec::with_capacity(problem.jobs.len());
    let mut beyond = Vec::new();
    let (mut tardiness, mut late, mut changeovers) = (0, 0, 0);
    for (m, queue) in plan.iter().enumerate() {
        problem.walk(m, queue, |job, at| {
            if at.start > horizon {
                beyond.push(json!(job));
                return;
            }
            if let Some(due) = problem.jobs[job].due {
                tardiness += (at.end - due).max(0);
                late += i64::from(at.end > due);
            }
            changeovers += at.changeovers;
            rows.push(json!([job, m, at.start, at.end, at.changeovers]));
        });
    }
    Ok(
        json!({ "rows": rows, "homeless": homeless, "beyond": beyond, "tardiness": tardiness, "late": late, "changeovers": changeovers }),
    )
}

#[cfg(test)]
mod tests;
