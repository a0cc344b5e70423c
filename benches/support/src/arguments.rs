//! What a bench that prints a table can be asked.

use std::{env, process, time::Duration};

/// Which rows, and how long a round.
#[derive(Debug)]
pub struct Arguments {
    filter: String,
    /// How long each contender runs in each round.
    pub round: Duration,
}

impl Arguments {
    /// From the command line; `--help` and what is not understood end the process.
    pub fn parse_or_exit(bench: &str) -> Self {
        let usage = usage(bench);
        let mut arguments = Self { filter: String::new(), round: ROUND };
        // Cargo says `--bench` when it benches and nothing when it tests the bench.
        let mut quick = !env::args().any(|argument| argument == "--bench");
        for argument in env::args().skip(1) {
            match argument.as_str() {
                "--bench" => {}
                "--quick" => quick = true,
                "--help" | "-h" => {
                    println!("{usage}");
                    process::exit(0);
                }
                flag if flag.starts_with('-') => {
                    eprintln!("unknown flag {flag}\n\n{usage}");
                    process::exit(2);
                }
                filter => filter.clone_into(&mut arguments.filter),
            }
        }
        if quick {
            arguments.round = Duration::from_millis(20);
        }
        arguments
    }

    /// The row is asked for.
    pub fn wants(&self, row: &str) -> bool {
        row.contains(&self.filter)
    }

    /// It shall be shown that it works, not how fast it is.
    pub fn is_quick(&self) -> bool {
        self.round != ROUND
    }

    /// All rows are asked for, and in earnest.
    pub fn is_whole(&self) -> bool {
        self.filter.is_empty() && self.round == ROUND
    }
}

const ROUND: Duration = Duration::from_secs(1);

fn usage(bench: &str) -> String {
    format!(
        "usage: cargo bench --bench {bench} [-- [--quick] [FILTER]]

  --quick   little work and short rounds: shows that it works, not how fast it is
  FILTER    only the rows whose name contains it

KONTIKI_BENCH_DIR is the directory to measure in; the default is Cargo's target directory."
    )
}
