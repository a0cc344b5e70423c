//! `completions`: what a shell needs to complete the command line.

use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};

use crate::{
    arguments::Arguments,
    outcome::{Failure, Outcome},
    terminal,
};

pub(crate) const HELP: &str = "\
Examples, where the directory is there; a shell that is started later completes flags and directories:
  wal-inspect completions bash > ~/.local/share/bash-completion/completions/wal-inspect
  wal-inspect completions zsh > ~/.zfunc/_wal-inspect     with fpath+=~/.zfunc before compinit
  wal-inspect completions fish > ~/.config/fish/completions/wal-inspect.fish

Exit codes: 0 done, 3 cannot write, 4 usage.";

#[derive(Debug, Args)]
pub(crate) struct CompletionsArguments {
    /// The shell that is to complete.
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

pub(crate) fn completions(arguments: &CompletionsArguments) -> Result<Outcome, Failure> {
    let mut script = Vec::new();
    generate(arguments.shell, &mut Arguments::command(), "wal-inspect", &mut script);
    let mut script = String::from_utf8_lossy(&script).into_owned();
    if arguments.shell == Shell::Bash {
        // The script names its states in two ways where the program's name has a hyphen (clap-rs/clap#6421).
        script = script.replace("wal__subcmd__inspect", "wal__inspect");
    }
    terminal::print(&script)?;
    Ok(Outcome::Whole)
}
