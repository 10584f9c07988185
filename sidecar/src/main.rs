//! odin-farm: the farm's way to the outside. It carries calls to PostgreSQL and answers back; it holds no rules.

mod app;
mod auth;
mod bridge;
mod check;
mod config;
mod db;
mod door;
mod egress;
mod embed;
mod files;
mod gateway;
mod hex;
mod keys;
mod limits;
mod mcp;
mod origin;
mod printers;
mod registry;
mod remote;
mod rest;
mod server;
mod sign_in;
mod slicers;
mod sources;
mod telemetry;
mod traces;
mod work;

use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(name = "odin-farm", version, about, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve MCP at /mcp, health and metrics over HTTP, and work on tasks
    Serve(Box<config::Serve>),
    /// Do background work only: tasks, slicing, printers
    Worker(Box<config::Worker>),
    /// Speak MCP on stdin and stdout, for clients that start their servers
    Stdio(Box<config::Stdio>),
    /// Say how ready database, sidecar, printers, slicers and model sites are
    Check(Box<check::Check>),
    /// Make, list, rotate and end keys, with your own database login
    Key(Box<config::Keys>),
    /// Read a PDF on stdin and write its text; the sidecar starts this for itself
    #[command(hide = true)]
    ReadPdf,
}

/// 128 random bits in hex: ids that nobody can guess.
pub fn random_id() -> String {
    format!("{:032x}", rand::random::<u128>())
}

fn main() -> std::process::ExitCode {
    let cli = Cli::parse();
    if matches!(cli.command, Command::ReadPdf) {
        return ended(work::read_pdf().map(|()| true));
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        // A call's whole state machine lives on one stack while it is polled; unoptimised, that is more than the 2 MB default.
        .thread_stack_size(8 * 1024 * 1024)
        .build()
    {
        Ok(runtime) => runtime,
        Err(e) => {
            eprintln!("odin-farm: {e}");
            return std::process::ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        match &cli.command {
            Command::Serve(config) => telemetry::init(&config.common, "info")?,
            Command::Worker(config) => telemetry::init(&config.common, "info")?,
            // The client shows our stderr to its user.
            Command::Stdio(config) => telemetry::init(&config.common, "warn")?,
            // Whatever is wrong is in the report.
            Command::Check(config) => telemetry::init(config.common(), "off")?,
            Command::Key(_) | Command::ReadPdf => {}
        }
        match cli.command {
            Command::Serve(config) => server::run(*config).await.map(|()| true),
            Command::Worker(config) => work::run(*config).await.map(|()| true),
            Command::Stdio(config) => mcp::stdio::run(*config).await.map(|()| true),
            Command::Check(config) => check::run(*config).await,
            Command::Key(config) => keys::run(*config).await.map(|()| true),
            Command::ReadPdf => Ok(true),
        }
    });
    traces::flush();
    // Reading stdin blocks a thread of the runtime: do not wait for it.
    runtime.shutdown_background();
    ended(result)
}

/// A report that found something wrong is no error, and no success.
fn ended(result: Result<bool, String>) -> std::process::ExitCode {
    match result {
        Ok(true) => std::process::ExitCode::SUCCESS,
        Ok(false) => std::process::ExitCode::FAILURE,
        Err(e) => {
            eprintln!("odin-farm: {e}");
            std::process::ExitCode::FAILURE
        }
    }
}
