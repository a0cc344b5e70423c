//! What is different where somebody watches.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt, net::UnixStream},
    },
    process::Stdio,
    thread,
    time::Duration,
};

use kontiki_wal::LogId;
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use tempfile::TempDir;

use crate::support::{append, closed_log, command, options, wal_inspect};

/// Our side of a terminal of so many columns, and the one for a program.
fn terminal(columns: u16) -> (OwnedFd, OwnedFd) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let name = OsStr::from_bytes(name.as_bytes());
    let theirs: OwnedFd =
        rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    tcsetwinsize(&theirs, Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 })
        .unwrap();
    (ours, theirs)
}

/// All that is shown there, to its end.
fn shown_on(ours: OwnedFd) -> String {
    let mut shown = Vec::new();
    // Linux says EIO where the other side has closed a terminal.
    if let Err(error) = File::from(ours).read_to_end(&mut shown) {
        assert_eq!(error.raw_os_error(), Some(Errno::IO.raw_os_error()), "{error}");
    }
    String::from_utf8(shown).unwrap().replace("\r\n", "\n")
}

/// Runs `wal-inspect segments` with a terminal of so many columns as its standard output.
fn segments_on_a_terminal(columns: u16, environment: &[(&str, &str)]) -> String {
    let log = closed_log();
    let (ours, theirs) = terminal(columns);
    let mut child = command()
        .arg("segments")
        .arg(log.path())
        .env("TERM", "xterm")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(theirs)
        .spawn()
        .unwrap();
    let shown = shown_on(ours);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    shown
}

#[test]
fn a_bar_is_for_terminals_and_gone_at_the_end() {
    let directory = TempDir::new().unwrap();
    let probe = || {
        let mut probe = command();
        probe.args(["probe", "--seconds=2", "--segment-bytes=4194304"]).arg(directory.path());
        probe.env("TERM", "xterm").stdin(Stdio::null()).stdout(Stdio::piped());
        probe
    };
    let (ours, theirs) = terminal(80);
    let mut child = probe().stderr(theirs).spawn().unwrap();
    let shown = shown_on(ours);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(shown.contains("measuring [") && shown.contains("=>"), "{shown:?}");
    assert!(shown.contains(" % ") && !shown.contains("  0 % "), "{shown:?}");
    // What is left in the line is nothing.
    let last = shown.rsplit('\r').next().unwrap();
    assert!(last.starts_with("\x1b[") && !last.contains('='), "{shown:?}");

    let run = probe().stderr(Stdio::piped()).output().unwrap();
    assert_eq!(run.status.code(), Some(0));
    assert_eq!(String::from_utf8(run.stderr).unwrap(), "", "no bar for a file");
}

/// What a dump shows on a terminal for its errors while it waits for its reader.
fn shown_beside_a_dump(stdout: OwnedFd, reader: OwnedFd) -> String {
    let directory = TempDir::new().unwrap();
    let wal = options().segment_bytes(2 << 20).open(directory.path()).unwrap();
    append(&wal.log(LogId(1)).unwrap(), 1, 40_000);
    wal.close().unwrap();
    let (ours, theirs) = terminal(80);
    let mut dump = command();
    dump.arg("dump").arg(directory.path()).env("TERM", "xterm").stdin(Stdio::null());
    let mut child = dump.stdout(stdout).stderr(theirs).spawn().unwrap();
    drop(dump);
    // Longer than it is silent.
    thread::sleep(Duration::from_millis(1500));
    io::copy(&mut File::from(reader), &mut io::sink()).unwrap();
    let shown = shown_on(ours);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    shown
}

#[test]
fn a_long_dump_has_a_bar_too_where_it_spoils_no_screen() {
    let (reader, writer) = UnixStream::pair().unwrap();
    let shown = shown_beside_a_dump(writer.into(), reader.into());
    assert!(shown.contains("reading 2 MiB ["), "{shown:?}");
    // What reads a pipe can be showing it, as `less` does.
    let (reader, writer) = io::pipe().unwrap();
    assert_eq!(shown_beside_a_dump(writer.into(), reader.into()), "");
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
    let (log, mut forced) = (closed_log(), command());
    let forced = forced.arg("segments").arg(log.path()).env("CLICOLOR_FORCE", "1").output();
    let forced = String::from_utf8(forced.unwrap().stdout).unwrap();
    assert!(forced.contains(GREEN), "{forced:?}");
    let refused = segments_on_a_terminal(80, &[("CLICOLOR", "0")]);
    assert_eq!(refused, plain);
}
