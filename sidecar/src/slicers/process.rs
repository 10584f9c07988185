//! A slicer as a child process: its own group, killed whole; an environment without secrets; limits; its words kept short.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

/// Lines that are kept of what a slicer says; CuraEngine alone writes thousands.
const KEPT: usize = 200;
const LONGEST_LINE: usize = 2_000;
/// A slicer is asked about itself once, when it may have to come from a slow disk.
pub const FIRST_WORDS: Duration = Duration::from_secs(120);

pub struct Run<'a> {
    pub program: &'a Path,
    pub arguments: &'a [String],
    pub environment: &'a [(&'a str, String)],
    pub folder: &'a Path,
    pub limit: Duration,
}

#[derive(Debug)]
pub struct Ended {
    /// `None`: killed by a signal.
    pub code: Option<i32>,
    pub said: Vec<String>,
}

#[derive(Debug)]
pub enum NoEnd {
    Cancelled,
    TimedOut,
    CouldNotStart(std::io::Error),
}

/// Kills the whole group when it goes out of scope, whoever left.
struct Group(Option<i32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(id) = self.0 {
            // SAFETY: a plain system call without memory; the group is our child's, and it is not reaped before this.
            unsafe {
                libc::killpg(id, libc::SIGKILL);
            }
        }
    }
}

/// Run to the end, the limit or the cancel; nothing of the group survives either.
pub async fn run(
    run: &Run<'_>,
    cancel: &CancellationToken,
    mut heard: impl FnMut(&str),
) -> Result<Ended, NoEnd> {
    let mut command = Command::new(run.program);
    command
        .args(run.arguments)
        .current_dir(run.folder)
        // Nothing of ours: no database URL, no key, no token.
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .env("HOME", run.folder)
        .env("LC_ALL", "C.UTF-8")
        .envs(
            run.environment
                .iter()
                .map(|(name, value)| (*name, value.as_str())),
        )
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    // SAFETY: between fork and exec only async-signal-safe calls are made, and nothing is allocated.
    unsafe {
        command.pre_exec(confine);
    }
    let mut child = command.spawn().map_err(NoEnd::CouldNotStart)?;
    let mut group = Group(child.id().and_then(|id| i32::try_from(id).ok()));
    let mut lines = Lines {
        out: child.stdout.take().map(Words::new),
        err: child.stderr.take().map(Words::new),
    };
    let mut said = VecDeque::new();
    let reading = async {
        while let Some(line) = lines.next().await {
            heard(&line);
            if said.len() == KEPT {
                said.pop_front();
            }
            said.push_back(line);
        }
    };
    let ended = tokio::select! {
        () = reading => Ok(()),
        () = cancel.cancelled() => Err(NoEnd::Cancelled),
        () = tokio::time::sleep(run.limit) => Err(NoEnd::TimedOut),
    };
    if let Err(why) = ended {
        drop(group);
        // Reaped here, so that no zombie stays.
        let _ = child.wait().await;
        return Err(why);
    }
    // Both pipes are closed: it has ended, or talks to nobody any more.
    let status = tokio::select! {
        status = child.wait() => status.map_err(NoEnd::CouldNotStart)?,
        () = cancel.cancelled() => {
            drop(group);
            let _ = child.wait().await;
            return Err(NoEnd::Cancelled);
        }
    };
    // Reaped: its number may be somebody else's soon.
    group.0 = None;
    Ok(Ended {
        code: status.code(),
        said: said.into(),
    })
}

/// In the child: die with the parent, low priority, no core files, no endless files or memory.
fn confine() -> std::io::Result<()> {
    // SAFETY: system calls with plain numbers; a failed one only leaves the child less confined.
    unsafe {
        #[cfg(target_os = "linux")]
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        libc::setpriority(libc::PRIO_PROCESS, 0, 10);
        for (what, most) in [
            (libc::RLIMIT_CORE, 0),
            (libc::RLIMIT_FSIZE, 4 << 30),
            (libc::RLIMIT_AS, 8 << 30),
        ] {
            let limit = libc::rlimit {
                rlim_cur: most,
                rlim_max: most,
            };
            libc::setrlimit(what, &limit);
        }
    }
    Ok(())
}

struct Lines<O, E> {
    out: Option<Words<O>>,
    err: Option<Words<E>>,
}

impl<O: AsyncRead + Unpin, E: AsyncRead + Unpin> Lines<O, E> {
    async fn next(&mut self) -> Option<String> {
        loop {
            let (line, from_out) = match (&mut self.out, &mut self.err) {
                (Some(out), Some(err)) => tokio::select! {
                    line = out.line() => (line, true),
                    line = err.line() => (line, false),
                },
                (Some(out), None) => (out.line().await, true),
                (None, Some(err)) => (err.line().await, false),
                (None, None) => return None,
            };
            match line {
                Some(line) => return Some(line),
                None if from_out => self.out = None,
                None => self.err = None,
            }
        }
    }
}

/// One pipe, line by line. A line that was begun is kept here, so a read may be given up at any time.
struct Words<R> {
    reader: BufReader<R>,
    begun: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Words<R> {
    fn new(pipe: R) -> Self {
        Words {
            reader: BufReader::new(pipe),
            begun: Vec::new(),
        }
    }

    /// The next line, cut to a length.
    async fn line(&mut self) -> Option<String> {
        loop {
            let available = self.reader.fill_buf().await.ok()?;
            if available.is_empty() {
                return (!self.begun.is_empty()).then(|| self.take());
            }
            let end = available.iter().position(|b| matches!(b, b'\n' | b'\r'));
            let upto = end.unwrap_or(available.len());
            let room = LONGEST_LINE.saturating_sub(self.begun.len()).min(upto);
            self.begun.extend_from_slice(&available[..room]);
            self.reader.consume(end.map_or(upto, |end| end + 1));
            if end.is_some() {
                return Some(self.take());
            }
        }
    }

    fn take(&mut self) -> String {
        let line = String::from_utf8_lossy(&self.begun).into_owned();
        self.begun.clear();
        line
    }
}

/// The first version number a program prints about itself.
pub async fn version(program: &PathBuf, arguments: &[&str]) -> Option<String> {
    let arguments: Vec<String> = arguments.iter().map(|a| (*a).to_owned()).collect();
    let about = Run {
        program,
        arguments: &arguments,
        environment: &[],
        folder: Path::new("/"),
        limit: FIRST_WORDS,
    };
    let ended = run(&about, &CancellationToken::new(), |_| {}).await.ok()?;
    let words = ended
        .said
        .iter()
        .flat_map(|line| line.split([' ', '-', ',']));
    words
        .map(|word| word.trim_matches(|c: char| !c.is_ascii_digit() && c != '.'))
        .find(|word| word.contains('.') && word.bytes().all(|b| b.is_ascii_digit() || b == b'.'))
        .map(|word| word.chars().take(40).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell<'a>(script: &'a [String], limit: u64) -> Run<'a> {
        Run {
            program: Path::new("/bin/sh"),
            arguments: script,
            environment: &[],
            folder: Path::new("/"),
            limit: Duration::from_secs(limit),
        }
    }

    fn script(text: &str) -> Vec<String> {
        vec!["-c".to_owned(), text.to_owned()]
    }

    #[tokio::test]
    async fn words_and_end_are_told() {
        std::env::set_var("ODIN_TEST_SECRET", "hidden");
        let text = script("echo out $ODIN_TEST_SECRET; echo err >&2; exit 3");
        let ended = run(&shell(&text, 60), &CancellationToken::new(), |_| {})
            .await
            .unwrap();
        assert_eq!(ended.code, Some(3));
        let mut said = ended.said;
        said.sort();
        assert_eq!(said, ["err", "out"]);
    }

    #[tokio::test]
    async fn nothing_of_the_group_survives() {
        let marker = format!("odin-test-{}", std::process::id());
        let text = script(&format!(
            "sh -c 'exec sleep 300.{0}' & exec sleep 301.{0}",
            std::process::id()
        ));
        let cancel = CancellationToken::new();
        let asked = cancel.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(300)).await;
            asked.cancel();
        });
        let answer = run(&shell(&text, 200), &cancel, |_| {}).await;
        assert!(matches!(answer, Err(NoEnd::Cancelled)), "{marker}");
        let ours = format!(".{}\0", std::process::id());
        let left = || {
            let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
                let text = std::fs::read(entry.ok()?.path().join("cmdline")).ok()?;
                let text = String::from_utf8_lossy(&text).into_owned();
                (text.starts_with("sleep") && text.ends_with(&ours)).then_some(text)
            });
            all.count()
        };
        // Killed is not gone yet; what was spared would stay for five minutes.
        for _ in 0..600 {
            if left() == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(left(), 0);
    }

    #[tokio::test]
    async fn the_limit_is_kept() {
        let text = script("sleep 30");
        assert!(matches!(
            run(&shell(&text, 1), &CancellationToken::new(), |_| {}).await,
            Err(NoEnd::TimedOut)
        ));
    }
}
