//! `waymark`: one binary, a thin command line over the two libraries.

mod cli;
mod curated;
mod dev;
mod discovery;
mod election;
mod explain;
mod output;
mod plan;
mod registry;
mod run;

use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use cli::{Cli, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Where the output is for people, the log only says what went wrong.
    let quiet = matches!(cli.command, Command::Dev(_) | Command::Plan(_) | Command::Explain(_));
    let log_levels = run::logging(
        cli.log_format,
        if quiet { "warn,kube_runtime=error" } else { "info,kube_runtime=error" },
    );
    let done = match cli.command {
        Command::Plan(args) => plan::run(&args),
        Command::Dev(args) => run::block_on(dev::run(args)),
        Command::RegistryApi(args) => run::block_on(registry::run(args, log_levels)),
        Command::Discovery(args) => run::block_on(discovery::run(args)),
        Command::Explain(args) => run::block_on(explain::run(args)),
        Command::Crds => registry::print_crds(),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "waymark", &mut script);
            output::print(&String::from_utf8_lossy(&script)).map(|()| ExitCode::SUCCESS)
        }
    };
    match done {
        Ok(code) => code,
        Err(error) if output::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::complain(&format!("error: {error:#}"));
            ExitCode::from(2)
        }
    }
}
