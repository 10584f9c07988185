//! One printer's keeper: looks at it, tells the farm what it sees, and carries out its commands one after the other.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{json, Value};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::driver::{Act, Driver, Ended, Fault, Outcome, Report, State};
use super::order::{Order, Shown};
use super::spool::Spooled;
use super::watch::Watch;
use super::{camera, crash, Shared};

const SENDING: &str = "SELECT odin.worker_command_sending($1, $2, $3)";
const ENDED: &str = "SELECT odin.worker_command_ended($1, $2, $3, $4)";
const LOOK_LIMIT: Duration = Duration::from_secs(12);
/// A stop may hang behind the heating it interrupts; the server still obeys later.
const ACT_LIMIT: Duration = Duration::from_secs(300);
const LOOK_AGAIN: Duration = Duration::from_millis(400);
const FACTS_EVERY: Duration = Duration::from_secs(300);
const FILES_EVERY: Duration = Duration::from_secs(60);
const SETTLE_LIMIT: Duration = Duration::from_secs(30);
const UPLOAD_TRIES: u32 = 3;

pub struct Keeper {
    pub id: i64,
    pub fence: i64,
    pub driver: Box<dyn Driver>,
    pub shared: Arc<Shared>,
    pub stall_after: Duration,
    pub watch: Mutex<Watch>,
}

enum End {
    Done(Value),
    Failed(Fault),
    /// It is certain that nothing arrived.
    Again,
    /// The command belongs to somebody else by now, or has been ended in the database.
    Lost,
}

impl Keeper {
    pub async fn run(self, mut orders: mpsc::Receiver<Order>, stop: CancellationToken) {
        let work = async {
            loop {
                let seen = self.look(true).await;
                self.keep_house(seen.is_ok()).await;
                tokio::select! {
                    order = orders.recv() => match order {
                        Some(order) => self.obey(order).await,
                        None => return,
                    },
                    () = tokio::time::sleep(self.pause()) => {}
                    () = self.driver.changed() => {}
                }
            }
        };
        tokio::select! {
            () = work => {}
            () = stop.cancelled() => {}
        }
        self.shared.outbox.forget(self.id, self.fence);
    }

    fn watching<T>(&self, with: impl FnOnce(&mut Watch) -> T) -> T {
        // A poisoned lock still holds the last good value.
        with(
            &mut self
                .watch
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner),
        )
    }

    /// Until the next look: by the driver's pace, longer and longer while nobody answers.
    fn pause(&self) -> Duration {
        let (working, resting) = self.driver.pace();
        self.watching(|w| match w.failures {
            0 if w.busy => Duration::from_secs_f64(working),
            0 => Duration::from_secs_f64(resting),
            n => Duration::from_secs_f64(working.max(1.0) * f64::from(1u32 << n.min(5))),
        })
    }

    /// Ask the machine and pass on what it says. `settle`: a print that is gone has ended; not while one is being started.
    async fn look(&self, settle: bool) -> Result<Report, Fault> {
        let asked = tokio::time::timeout(LOOK_LIMIT, self.driver.status()).await;
        match asked.unwrap_or_else(|_| {
            Err(Fault::unreachable(
                "the printer's server does not answer in time",
            ))
        }) {
            Ok(report) => {
                self.watching(|w| w.failures = 0);
                if settle {
                    self.settle(&report).await;
                }
                self.shared.outbox.report(self.id, self.fence, &report);
                Ok(report)
            }
            Err(fault) => {
                let failures = self.watching(|w| {
                    w.failures += 1;
                    w.failures
                });
                // One lost packet is no outage.
                if failures >= 2 {
                    let offline = Report {
                        state: State::Offline,
                        error_code: Some(fault.code.to_owned()),
                        error_message: Some(fault.detail.clone()),
                        ..Report::default()
                    };
                    self.shared.outbox.report(self.id, self.fence, &offline);
                }
                Err(fault)
            }
        }
    }

    /// Notice the end of a print, and a print that stands still.
    async fn settle(&self, report: &Report) {
        let gone = self.watching(|w| {
            let stood_still = w.last.progress_pct == report.progress_pct
                && w.last.remaining_seconds == report.remaining_seconds
                && w.last.layer == report.layer;
            if report.state != State::Printing || !stood_still {
                w.moved_at = Some(Instant::now());
                w.stalled = false;
            }
            if report.state.is_busy() {
                w.busy = true;
                w.file = report.file.clone().or(w.file.take());
                w.last = report.clone();
                return None;
            }
            let over =
                matches!(report.state, State::Idle | State::Error) || report.outcome.is_some();
            (w.busy && over).then(|| (w.file.clone(), w.last.clone()))
        });
        if let Some((file, last)) = gone {
            if let Some(ended) = self.how_it_ended(report, file.as_deref(), &last).await {
                self.shared.outbox.ended(self.id, self.fence, &ended);
                self.watching(|w| w.busy = false);
            }
        } else {
            self.mind_the_stall(report);
        }
    }

    fn mind_the_stall(&self, report: &Report) {
        let stalled = self.watching(|w| {
            let long = w.moved_at.is_some_and(|t| t.elapsed() >= self.stall_after);
            let now = report.state == State::Printing && long && !w.stalled;
            w.stalled |= now;
            now
        });
        if stalled {
            let message = format!(
                "says it prints, but nothing has moved for {} minutes",
                self.stall_after.as_secs() / 60
            );
            self.shared.outbox.notable(
                self.id,
                self.fence,
                json!({"kind": "stalled", "severity": "critical", "message": message}),
            );
        }
    }

    async fn how_it_ended(
        &self,
        report: &Report,
        file: Option<&str>,
        last: &Report,
    ) -> Option<Ended> {
        let same = report.file.is_none() || report.file.as_deref() == file;
        let mut ended = match (report.outcome, file) {
            (Some(outcome), _) if same => report.ended(outcome),
            (_, Some(name)) => match self.driver.record_of(name).await {
                Ok(Some(ended)) => ended,
                // Asked again at the next look.
                Err(fault) if fault.code != "not_supported" => return None,
                Ok(None) | Err(_) => Report::default().ended(Outcome::Failed),
            },
            (_, None) => report.ended(Outcome::Failed),
        };
        if ended.outcome == Outcome::Failed && ended.message.is_none() {
            ended.message =
                Some("the print is gone from the printer's server without having ended".to_owned());
        }
        ended.file = file.map(str::to_owned);
        ended.progress = ended.progress.or(last.progress_pct);
        ended.seconds = ended.seconds.or(last.seconds);
        Some(ended)
    }

    async fn keep_house(&self, answers: bool) {
        if !answers {
            return;
        }
        let due = |at: Option<Instant>, every| at.is_none_or(|t: Instant| t.elapsed() >= every);
        if let Some(file) = self.watching(|w| w.lost_file.take()) {
            if let Ok(Some(ended)) = self.driver.record_of(&file).await {
                self.shared.outbox.ended(
                    self.id,
                    self.fence,
                    &Ended {
                        file: Some(file),
                        ..ended
                    },
                );
            }
        }
        if self.watching(|w| due(w.facts_at, FACTS_EVERY)) {
            if let Ok(facts) = self.driver.facts().await {
                self.shared.outbox.facts(self.id, self.fence, facts);
            }
            self.watching(|w| w.facts_at = Some(Instant::now()));
        }
        let moved = self.driver.files_moved();
        if moved || self.watching(|w| due(w.files_at, FILES_EVERY)) {
            if let Ok(mut files) = self.driver.files().await {
                files.sort_by(|a, b| b.date.cmp(&a.date).then_with(|| a.path.cmp(&b.path)));
                self.shared.outbox.files(self.id, self.fence, &files);
            }
            self.watching(|w| w.files_at = Some(Instant::now()));
        }
    }

    async fn obey(&self, order: Order) {
        let started = Instant::now();
        crash::at("claimed", &order.verb);
        let end = if order.in_doubt {
            self.reconcile(&order).await
        } else {
            self.carry_out(&order).await
        };
        let (outcome, code) = match end {
            End::Lost => {
                tracing::info!(
                    printer = self.id,
                    command = order.id,
                    verb = order.verb,
                    "command is no longer ours"
                );
                return;
            }
            End::Done(result) => (json!({"state": "done", "result": result}), "done"),
            End::Again => (json!({"state": "again"}), "again"),
            End::Failed(fault) => (
                json!({"state": "failed", "error": fault.to_json()}),
                fault.code,
            ),
        };
        crash::at("confirmed", &order.verb);
        self.watching(|w| {
            w.facts_at = w
                .facts_at
                .filter(|_| !matches!(order.verb.as_str(), "connect" | "disconnect"))
        });
        // Whoever is told that it worked must find the state that proves it.
        self.shared.flush().await;
        // What came of it must not get lost: try until it is written or the lease is gone.
        let mut wait = Duration::from_millis(200);
        loop {
            match self
                .shared
                .db
                .quick(
                    ENDED,
                    &[&order.id, &self.shared.holder, &order.fence, &outcome],
                )
                .await
            {
                Ok(_) => break,
                Err(e) => {
                    tracing::warn!(printer = self.id, command = order.id, error = %e, "the end of a command could not be written")
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(5));
        }
        let took = started.elapsed().as_millis() as u64;
        tracing::info!(
            printer = self.id,
            command = order.id,
            verb = order.verb,
            outcome = code,
            duration_ms = took,
            "command"
        );
    }

    async fn carry_out(&self, order: &Order) -> End {
        if order.verb == "test" {
            return self.test().await;
        }
        if order.verb == "snapshot" {
            return match camera::snapshot(&self.shared, order).await {
                Ok(result) => End::Done(result),
                Err(fault) => End::Failed(fault),
            };
        }
        let act = match order.act() {
            Ok(act) => act,
            Err(fault) => return End::Failed(fault),
        };
        let now = match self.look_settled(order).await {
            Ok(now) => now,
            Err(fault) => return End::Failed(fault),
        };
        match order.may_leave(&now) {
            Ok(false) => {}
            Ok(true) => {
                return End::Done(self.result(order, &now, "was so already; nothing was sent"))
            }
            Err(fault) => return End::Failed(fault),
        }
        if let (Some(sha256), Some(name)) = (&order.sha256, &order.file) {
            if let Err(fault) = self.bring(sha256, name).await {
                return End::Failed(fault);
            }
        }
        match self.may_send(order).await {
            Ok(()) => {}
            Err(end) => return end,
        }
        crash::at("sending", &order.verb);
        let Some(act) = act else {
            return End::Done(self.result(order, &now, "the file is stored"));
        };
        self.send_and_see(order, &act, &now).await
    }

    /// A server that just ended a print may take none for some seconds; a start waits for that.
    async fn look_settled(&self, order: &Order) -> Result<Report, Fault> {
        let until = Instant::now() + SETTLE_LIMIT;
        loop {
            let was_there = self.watching(|w| w.failures) == 0;
            let now = match self.look(true).await {
                // As everywhere: one lost packet is no outage.
                Err(fault) if was_there && fault.code == "printer_unreachable" => {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
                answer => answer?,
            };
            if !now.settling || !order.prints() || Instant::now() > until {
                return Ok(now);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// What is wrong is the answer here, not an error.
    async fn test(&self) -> End {
        let asked = tokio::time::timeout(LOOK_LIMIT * 2, self.driver.probe()).await;
        let said = asked.unwrap_or_else(|_| {
            Err(Fault::unreachable(
                "nothing answers in time: off, another network, or a firewall",
            ))
        });
        End::Done(match said {
            Ok(words) => json!({"works": true, "detail": words}),
            Err(fault) => json!({"works": false, "problem": fault.code, "detail": fault.detail}),
        })
    }

    /// The file goes over before anything else happens; a broken upload is tried again, a few times.
    async fn bring(&self, sha256: &str, name: &str) -> Result<(), Fault> {
        let file = Spooled::fetch(&self.shared.files, sha256).await?;
        let _one = self.shared.uploads.acquire().await;
        let mut tries = 0;
        loop {
            tries += 1;
            match self.driver.upload(name, &file).await {
                Ok(()) => break,
                Err(fault)
                    if tries < UPLOAD_TRIES
                        && (fault.maybe_sent || fault.code == "printer_unreachable") =>
                {
                    tracing::info!(printer = self.id, error = %fault, tries, "upload broke off");
                    tokio::time::sleep(Duration::from_secs(u64::from(tries) * 2)).await;
                }
                Err(fault) => return Err(fault),
            }
        }
        self.watching(|w| w.files_at = None);
        Ok(())
    }

    /// Committed as sent before the first byte leaves; and never after our lease may have passed to somebody else.
    async fn may_send(&self, order: &Order) -> Result<(), End> {
        let mut unheard = false;
        self.shared.wait_for_heartbeat().await;
        loop {
            let answer = self
                .shared
                .db
                .quick(SENDING, &[&order.id, &self.shared.holder, &order.fence])
                .await;
            match answer {
                Ok(answer) if answer["ok"] == true && self.shared.lease_is_good() => return Ok(()),
                Ok(answer) if answer["ok"] == true || unheard => {
                    return Err(End::Failed(Fault::unreachable(
                        "the database was away for a moment; nothing was sent to the printer",
                    )));
                }
                Ok(_) => return Err(End::Lost),
                Err(e) => {
                    tracing::warn!(printer = self.id, command = order.id, error = %e, "not sent yet: the database does not answer");
                    unheard = true;
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// Send it once, and look until the machine shows it. Both at the same time: a stop may answer long after it worked.
    async fn send_and_see(&self, order: &Order, act: &Act, before: &Report) -> End {
        let limit = Duration::from_secs_f64(order.patience());
        let started = Instant::now();
        let sending = tokio::time::timeout(ACT_LIMIT, self.driver.act(act));
        tokio::pin!(sending);
        let mut answered: Option<Result<Value, Fault>> = None;
        let is_start = matches!(act, Act::Start { .. });
        loop {
            tokio::select! {
                answer = &mut sending, if answered.is_none() => {
                    crash::at("sent", &order.verb);
                    let answer = answer.unwrap_or_else(|_| Err(Fault::broken("the printer's server did not answer")));
                    if let Err(fault) = &answer {
                        if !fault.maybe_sent {
                            return End::Failed(fault.clone());
                        }
                        tracing::info!(printer = self.id, command = order.id, error = %fault, "sent, but the answer is missing");
                    }
                    answered = Some(answer);
                }
                () = tokio::time::sleep(LOOK_AGAIN), if answered.is_some() || started.elapsed() > Duration::from_secs(2) => {}
                () = tokio::time::sleep(Duration::from_secs(2)), if answered.is_none() && started.elapsed() <= Duration::from_secs(2) => {}
            }
            let lost_answer = matches!(answered, Some(Err(_)));
            if lost_answer
                && !order.leaves_a_sign()
                && order.verb != "print_file"
                && order.verb != "upload"
            {
                return End::Failed(Fault::in_doubt(format!(
                    "{}: the connection broke before the printer answered",
                    order.verb
                )));
            }
            // What needs no proof by state is done when it was accepted.
            let shown = match self.look(!is_start).await {
                Ok(now) => (order.shown(&now), now),
                Err(_) => (Shown::NotYet, Report::default()),
            };
            match shown {
                (Shown::Yes, now) if answered.is_some() || !order.is_done_when_accepted() => {
                    if is_start {
                        self.begun(order, &now).await;
                    }
                    let mut result = self.result(order, &now, "");
                    if let Some(Ok(Value::Object(said))) = answered {
                        for (name, value) in said {
                            result[name] = value;
                        }
                    }
                    return End::Done(result);
                }
                (Shown::Never(why), _) => return End::Failed(Fault::refused(why)),
                (_, now) if order.failed_at_once(&now) && !order.failed_at_once(before) => {
                    let why = now.error_message;
                    return End::Failed(Fault::refused(
                        why.unwrap_or_else(|| "the print failed as it began".to_owned()),
                    ));
                }
                (_, _) if started.elapsed() >= limit => {
                    let why = format!(
                        "{} was sent, but the printer did not show it within {} s",
                        order.verb,
                        limit.as_secs()
                    );
                    return End::Failed(Fault::unconfirmed(why));
                }
                _ => {}
            }
        }
    }

    /// A print of ours is on the machine: from now on its end counts. So short a one may be over already.
    async fn begun(&self, order: &Order, now: &Report) {
        self.watching(|w| {
            w.busy = true;
            w.file = order.file.clone();
            w.last = now.clone();
            w.moved_at = Some(Instant::now());
        });
    }

    /// Whoever sent it is gone. The machine is looked at before anything else; nothing is repeated blindly.
    async fn reconcile(&self, order: &Order) -> End {
        let give_up = Instant::now() + Duration::from_secs_f64(order.seconds_left.max(30.0));
        let now = loop {
            // A print that just began shows itself within a moment.
            tokio::time::sleep(Duration::from_secs(1)).await;
            match self.look(false).await {
                Ok(now)
                    if !matches!(now.state, State::Offline | State::Unknown)
                        || matches!(order.verb.as_str(), "connect" | "disconnect") =>
                {
                    break now
                }
                _ if Instant::now() > give_up => {
                    return End::Failed(Fault::in_doubt(format!(
                        "{}: the printer cannot be reached to see whether it happened",
                        order.verb
                    )));
                }
                _ => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        };
        if order.is_harmless_twice() {
            return End::Again;
        }
        if !order.leaves_a_sign() && order.verb != "print_file" && order.verb != "upload" {
            return End::Failed(Fault::in_doubt(format!(
                "{}: the sidecar that sent it died before it heard back",
                order.verb
            )));
        }
        // The file is there, but nobody knows whether it was chosen; choosing it twice is the same as once.
        if matches!(order.act(), Ok(Some(Act::Select { .. }))) && now.file != order.file {
            return End::Again;
        }
        let starts = matches!(order.act(), Ok(Some(Act::Start { .. })));
        match order.shown(&now) {
            Shown::Yes => {
                if starts {
                    self.begun(order, &now).await;
                }
                return End::Done(self.result(order, &now, "found done after a restart"));
            }
            Shown::Never(why) if order.verb != "start" => return End::Failed(Fault::refused(why)),
            _ => {}
        }
        if let ("start", Some(file)) = (order.verb.as_str(), &order.file) {
            // The name is this run's alone, so the server's own record is proof.
            match self.driver.record_of(file).await {
                Ok(Some(ended)) => {
                    self.shared.outbox.ended(
                        self.id,
                        self.fence,
                        &Ended {
                            file: Some(file.clone()),
                            ..ended
                        },
                    );
                    return End::Done(self.result(order, &now, "found done after a restart"));
                }
                Ok(None) if !now.state.is_busy() => return End::Again,
                Ok(None) => {
                    return End::Failed(Fault::refused("the printer prints something else"))
                }
                Err(fault) => {
                    return End::Failed(Fault::in_doubt(format!(
                        "start: the printer's records cannot be read: {fault}"
                    )))
                }
            }
        }
        if order.leaves_a_sign() {
            return End::Again;
        }
        End::Failed(Fault::in_doubt(format!(
            "{}: it may have been printed and ended meanwhile",
            order.verb
        )))
    }

    fn result(&self, order: &Order, now: &Report, remark: &str) -> Value {
        let words = order.words(self.watching(|w| w.busy));
        let detail = if remark.is_empty() {
            format!("The printer reports {}: {words}.", now.state.as_str())
        } else {
            format!("The printer reports {}: {remark}.", now.state.as_str())
        };
        let mut result = json!({"state": now.state.as_str(), "detail": detail});
        if let Some(progress) = now.progress_pct.filter(|_| order.verb != "start") {
            result["progress"] = json!(progress);
        }
        result
    }
}
