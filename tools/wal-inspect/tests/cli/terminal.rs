//! What is different where somebody watches.

use std::{
    ffi::OsStr,
    fs::File,
    io::Read,
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    process::Stdio,
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

use crate::support::{closed_log, command, wal_inspect};

/// Runs `wal-inspect segments` with a terminal of so many columns as its standard output.
fn segments_on_a_terminal(columns: u16, environment: &[(&str, &str)]) -> String {
    let log = closed_log();
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let name = OsStr::from_bytes(name.as_bytes());
    let theirs: OwnedFd =
        rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    tcsetwinsize(&theirs, Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })
        .unwrap();
    let mut child = command()
        .arg("segments")
        .arg(log.path())
        .env_remove("NO_COLOR")
        .env("TERM", "xterm")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(theirs)
        .spawn()
        .unwrap();
    let mut shown = Vec::new();
    // Linux says EIO where the other side has closed a terminal.
    if let Err(error) = File::from(ours).read_to_end(&mut shown) {
        assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()), "{error}");
    }
    assert_eq!(child.wait().unwrap().code(), Some(0));
    String::from_utf8(shown).unwrap().replace("\r\n", "\n")
}

/// The picture of the first segment.
fn picture(shown: &str) -> &str {
    shown.lines().find(|line| line.starts_with("1 ")).unwrap()
}

#[test]
fn pictures_are_as_wide_as_the_terminal_and_else_80_columns() {
    for columns in [57, 133] {
        let shown = segments_on_a_terminal(columns, &[("NO_COLOR", "1")]);
        assert_eq!(picture(&shown).len(), usize::from(columns), "{shown}");
    }
    let run = wal_inspect([OsStr::new("segments"), closed_log().path().as_os_str()]);
    assert_eq!(picture(&run.stdout).len(), 80, "{run:?}");
}

#[test]
fn colour_is_for_terminals_that_want_it() {
    const GREEN: &str = "\x1b[32m";
    let coloured = segments_on_a_terminal(80, &[]);
    assert!(picture(&coloured).contains(GREEN), "{coloured:?}");
    let plain = segments_on_a_terminal(80, &[("NO_COLOR", "1")]);
    assert!(!plain.contains('\x1b') && picture(&plain).contains('#'), "{plain:?}");
    let run = wal_inspect([OsStr::new("segments"), closed_log().path().as_os_str()]);
    assert_eq!(run.stdout, plain, "what is no terminal gets the same without colour");
}
