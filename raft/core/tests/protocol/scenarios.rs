//! The stories in `tests/scenarios/*.txt`: what the core puts out, command by command, to be read and to be reviewed as a diff.
//!
//! `KONTIKI_SCENARIOS=write cargo test -p kontiki-core --test protocol scenarios` writes what is put out now into the files.
//!
//! # The language
//!
//! ```text
//! # A comment; the first one says what the story shows and which RAFT-CASEs it touches.
//! > propose 1 x
//!   1 write #3 1/2 x
//!   1 -> 2 AppendEntries term 1 round 1 previous 1/1 commit 1 + 1/2 x
//! ```
//!
//! A line behind `> ` is a command. The lines behind it that are indented by two are what comes of it, and are rewritten;
//! everything else stays. Messages wait on the network until they are delivered, in the order in which they were sent; writes
//! are durable at once where no disk is held; time stands still but for the commands that let it pass.
//!
//! | command | what it does |
//! |---|---|
//! | `nodes N [option=value ...]` | voters 1 to N; an option is `learners`, or one of `Config` that bounds entries, messages or bytes |
//! | `tick 1 300ms` | time passes, then node 1 does what is due, and nobody else |
//! | `run 300ms` | time passes, everybody does what is due, and messages take no time |
//! | `elect 1` | time passes until nobody trusts a leader, then node 1 is elected; what is on its way is delivered |
//! | `elect 3 by 4 5` | the same, but nobody hears of it but these voters, and what it sends as a leader stays on its way |
//! | `propose 1 x y` | one proposal of two commands |
//! | `read 1` | a linearizable read; they are counted from 1 |
//! | `deliver [1->2 [COUNT]]` | delivers what is on its way, or that of one direction, or its oldest ones |
//! | `repeat`, `drop`, the same way | delivers it, but leaves it on its way; loses it |
//! | `settle` | delivers everything, and what follows from it |
//! | `cut 1->2`, `isolate 3`, `heal` | what is delivered over a cut is lost |
//! | `hold disk 1`, `written 1`, `free disk 1` | writes wait; the oldest one is durable; all are, and none waits any more |
//! | `hold fetches 1`, `fetched 1` | what is to be read from the log waits; the oldest one is read |
//! | `hold applies 1`, `applied 1` | the state machine is slow; it has taken in everything that it was handed |
//! | `hold snapshots 3`, `bring 3`, `fail 3` | a snapshot that 3 asks for waits; arrives, as its owner has it by now; is not had |
//! | `snapshot 1` | node 1 has taken a snapshot of everything that it has applied |
//! | `crash 1`, `start 1` | stops a node at once; starts it with what is durable, nothing held |
//! | `status [1]`, `log 1`, `disk 1` | where nodes stand; the entries of a log; what is durable of it |
//! | `quietly COMMAND` | tells nothing of what nodes put out, but that one halts |

use std::{env, fmt::Write, fs, path::Path};

use crate::story::Story;

/// A line that stays, and what is said to come of it if it is a command.
struct Step<'a> {
    number: usize,
    line: &'a str,
    expected: Vec<&'a str>,
}

/// What a whole file comes to.
struct Outcome {
    /// The file, with what is put out now.
    text: String,
    /// The commands of which something else comes, each with a diff.
    differences: Vec<String>,
}

#[test]
fn every_scenario_tells_what_its_file_tells() {
    let is_asked = env::var_os("KONTIKI_SCENARIOS").is_some_and(|value| value == "write");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "txt"));
    files.sort();
    assert!(!files.is_empty());
    let mut wrong = Vec::new();
    for file in files {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let told = fs::read_to_string(&file).unwrap();
        match tell(&name, &told) {
            Err(error) => wrong.push(error),
            Ok(outcome) if is_asked => fs::write(&file, outcome.text).unwrap(),
            Ok(outcome) => wrong.extend(outcome.differences.into_iter().take(DIFFERENCES_MAX)),
        }
    }
    assert!(wrong.is_empty(), "\n{}\nTo rewrite the files: {REWRITE}\n", wrong.join("\n"));
}

/// Tells a story anew.
fn tell(name: &str, told: &str) -> Result<Outcome, String> {
    let mut outcome = Outcome { text: String::new(), differences: Vec::new() };
    let steps = read(name, told)?;
    if !steps.iter().any(|step| step.line.starts_with(COMMAND)) {
        return Err(format!("{name}: a story without a command"));
    }
    let mut story = Story::default();
    for Step { number, line, expected } in steps {
        let place = Place { name, number, line };
        writeln!(outcome.text, "{line}").unwrap();
        let Some(command) = line.strip_prefix(COMMAND) else { continue };
        let actual = story.command(command).map_err(|error| {
            // What can not be done any more often follows from what differed before.
            let first = outcome.differences.drain(..).take(1);
            first.chain([place.text(&error)]).collect::<Vec<_>>().join("\n")
        })?;
        for line in &actual {
            writeln!(outcome.text, "{INDENT}{line}").unwrap();
        }
        if actual != expected {
            outcome.differences.push(place.text(&difference(&expected, &actual)));
        }
    }
    Ok(outcome)
}

fn read<'a>(name: &str, told: &'a str) -> Result<Vec<Step<'a>>, String> {
    let mut steps: Vec<Step<'a>> = Vec::new();
    for (line, number) in told.lines().zip(1..) {
        let place = Place { name, number, line };
        let is_plain = line.is_empty() || line.starts_with('#') || line.starts_with(COMMAND);
        if let Some(output) = line.strip_prefix(INDENT) {
            match steps.last_mut().filter(|step| step.line.starts_with(COMMAND)) {
                Some(step) => step.expected.push(output),
                None => return Err(place.text("an output of no command")),
            }
        } else if is_plain && (number > 1 || line.starts_with("# ")) {
            steps.push(Step { number, line, expected: Vec::new() });
        } else if number == 1 {
            return Err(place.text("a story begins with a comment on what it shows"));
        } else {
            return Err(place.text("neither a comment, nor a command, nor an output"));
        }
    }
    Ok(steps)
}

/// What differs, without the lines that both begin and end with.
fn difference(expected: &[&str], actual: &[String]) -> String {
    let same = |(a, b): &(&&str, &String)| **a == b.as_str();
    let begin = expected.iter().zip(actual).take_while(same).count();
    let (expected, actual) = (&expected[begin..], &actual[begin..]);
    let end = expected.iter().rev().zip(actual.iter().rev()).take_while(same).count();
    let missing = expected[..expected.len() - end].iter().map(|line| format!("  - {line}"));
    let unexpected = actual[..actual.len() - end].iter().map(|line| format!("  + {line}"));
    let mut lines: Vec<_> = missing.take(LINES_MAX).collect();
    lines.extend(unexpected.take(LINES_MAX));
    lines.join("\n")
}

/// Where a story stands.
struct Place<'a> {
    name: &'a str,
    number: usize,
    line: &'a str,
}

impl Place<'_> {
    fn text(&self, problem: &str) -> String {
        format!("{}:{}: {}\n{problem}", self.name, self.number, self.line)
    }
}

impl Drop for Place<'_> {
    /// An assertion of the core or of the harness knows no files.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.text("is where it stopped"));
        }
    }
}

const COMMAND: &str = "> ";
const INDENT: &str = "  ";
const REWRITE: &str =
    "KONTIKI_SCENARIOS=write cargo test -p kontiki-core --test protocol scenarios";

/// How much a failure shows: what follows from the first difference of a story differs as well.
const DIFFERENCES_MAX: usize = 3;
const LINES_MAX: usize = 8;

#[test]
fn what_no_scenario_can_say_is_named_with_its_place() {
    for (lines, expected) in [
        ("> nodes 3\n", "x.txt:1: > nodes 3\na story begins with a comment"),
        ("# a\n", "x.txt: a story without a command"),
        ("# a\n  1 leads\n", "x.txt:2:   1 leads\nan output of no command"),
        ("# a\nnodes 3\n", "x.txt:2: nodes 3\nneither a comment"),
        ("# a\n\n> elect 1\n", "x.txt:3: > elect 1\nfirst comes `nodes`"),
        ("# a\n> nodes 17\n", "x.txt:2: > nodes 17\na cluster has one voter"),
        ("# a\n> nodes 3 speed=9\n", "x.txt:2: > nodes 3 speed=9\nno option speed"),
        ("# a\n> nodes 3\n> jump 1\n", "x.txt:3: > jump 1\nno such command"),
        ("# a\n> nodes 3\n> tick 4 1ms\n", "x.txt:3: > tick 4 1ms\nno node 4"),
        ("# a\n> nodes 3\n> tick 1 soon\n", "x.txt:3: > tick 1 soon\nsoon is no time"),
        ("# a\n> nodes 3\n> deliver 1->2\n", "x.txt:3: > deliver 1->2\nthere are not so many"),
        ("# a\n> nodes 3\n> written 1\n", "x.txt:3: > written 1\nthe disk of 1 has nothing"),
    ] {
        let error = tell("x.txt", lines).err().unwrap();
        assert!(error.starts_with(expected), "{error}");
    }
    let error = tell("x.txt", "# a\n> nodes 3\n  1 leads\n> written 1\n").err().unwrap();
    assert!(
        error.starts_with("x.txt:2: > nodes 3\n  - 1 leads\nx.txt:4: > written 1\n"),
        "{error}"
    );
}

#[test]
fn a_file_is_compared_and_rewritten_where_its_commands_stand() {
    let stale = "# A\n> nodes 1\n\n# B\n> tick 1 1200ms\n  1 sleeps\n> status\n";
    let outcome = tell("x.txt", stale).unwrap();
    let [first, second] = outcome.differences.as_slice() else { panic!("two commands differ") };
    assert!(first.starts_with("x.txt:5: > tick 1 1200ms\n  - 1 sleeps\n  + 1 "), "{first}");
    assert!(second.starts_with("x.txt:7: > status\n  + 1 is leader"), "{second}");
    let kept: Vec<_> = outcome.text.lines().filter(|line| !line.starts_with(INDENT)).collect();
    assert_eq!(kept, ["# A", "> nodes 1", "", "# B", "> tick 1 1200ms", "> status"]);
    let again = tell("x.txt", &outcome.text).unwrap();
    assert!(again.differences.is_empty() && again.text == outcome.text);
}
