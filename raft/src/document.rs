//! Holds the worked examples of PROTOCOL.md against the constants of tests.

/// Panics unless the document shows `bytes`, sixteen to a line.
pub(crate) fn assert_in_protocol(bytes: &[u8]) {
    let lines = bytes.chunks(16).enumerate().map(|(number, line)| {
        let hex = line.iter().map(|byte| format!(" {byte:02x}")).collect::<String>();
        format!("{:04x} {hex}", number * 16)
    });
    let mut rest = include_str!("../PROTOCOL.md").lines();
    for line in lines {
        assert!(rest.any(|shown| shown.starts_with(&line)), "PROTOCOL.md does not show {line}");
    }
}
