//! The same seed in another process.

use std::{fs, process::Command};

#[test]
fn the_same_seed_is_the_same_trace_and_history_byte_for_byte_in_another_process() {
    let directory = tempfile::tempdir().unwrap();
    let run = |name: &str| {
        let paths =
            ["trace", "history"].map(|what| directory.path().join(format!("{name}.{what}")));
        let [trace, history] = &paths;
        let output = Command::new(env!("CARGO_BIN_EXE_sim"))
            .args(["--seed", "11", "--trace"])
            .arg(trace)
            .arg("--history")
            .arg(history)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        let files = paths.map(|path| fs::read(path).unwrap());
        (output.stdout, files)
    };
    let (one, other) = (run("one"), run("other"));
    assert!(one == other, "the traces differ");
    let lines = one.1.map(|file| file.iter().filter(|&&byte| byte == b'\n').count());
    assert!(lines[0] > 1_000 && lines[1] > 100, "{lines:?}");
}
