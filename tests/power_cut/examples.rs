//! The examples as programs. Cargo builds them before it runs this test when everything is
//! tested, and not when only this test is; so they are built here, which then costs nothing.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

/// Those of the log.
pub(crate) struct Examples {
    pub(crate) append_lines: PathBuf,
    pub(crate) read_lines: PathBuf,
}

impl Examples {
    pub(crate) fn build() -> Self {
        let [append_lines, read_lines] = build(["append_lines", "read_lines"]);
        Self { append_lines, read_lines }
    }
}

/// Builds examples. Of the packages that are tested all together, so that nothing is built twice.
pub(crate) fn build<const N: usize>(names: [&str; N]) -> [PathBuf; N] {
    let output = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--message-format=json"])
        .args(names.map(|name| format!("--example={name}")))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo");
    assert!(output.status.success(), "the examples do not build");
    let messages = String::from_utf8(output.stdout).expect("JSON");
    names.map(|name| executable(&messages, name))
}

/// Where Cargo put an executable, by the messages of its build.
fn executable(messages: &str, name: &str) -> PathBuf {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .unwrap_or_else(|| panic!("cargo built no {name}"))
}
