//! What to look for before a repair: damage that no disk does, and that somebody can undo.

use kontiki_wal::Corruption;

/// What may have happened to the file of a segment, and how that is undone.
pub(super) fn hint(found: &Corruption) -> Option<String> {
    let (file, what) = (&found.segment, &found.what);
    if what.starts_with("missing file") {
        return Some(format!("is a copy of {file} anywhere? Put it back under its name first"));
    }
    if what.starts_with("sequence number of a segment's header") {
        return Some(format!(
            "{file} holds segment {:016x}.wal: were files exchanged or renamed? Give each its own name first",
            found.found
        ));
    }
    let lengths = what.strip_prefix("length of a segment: ")?;
    let (length, said) = lengths.split_once(" bytes, its header says ")?;
    let (length, said) = (length.parse::<u64>().ok()?, said.parse::<u64>().ok()?);
    Some(if length > said {
        format!(
            "{} bytes were added to {file}: cut them off first (truncate -s {said} {file})",
            length - said
        )
    } else {
        format!(
            "{} bytes of {file} are gone from its end: was it copied in part? Put a whole copy in its place first",
            said - length
        )
    })
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use kontiki_wal::inspect::Verdict;

    use super::*;
    use crate::look::Look;

    /// The texts are the log's, so they are made by it.
    #[test]
    fn what_was_done_to_a_file_is_told_with_what_undoes_it() {
        let fixture =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/format-1/closed");
        let name = |number: u64| format!("{number:016x}.wal");
        type Harm = fn(&Path, &str, &str);
        let cases: [(&str, Harm); 4] = [
            ("anywhere? Put it back under its name", |room, file, _| {
                fs::remove_file(room.join(file)).unwrap();
            }),
            ("exchanged or renamed? Give each its own name", |room, file, other| {
                fs::rename(room.join(file), room.join("aside")).unwrap();
                fs::rename(room.join(other), room.join(file)).unwrap();
                fs::rename(room.join("aside"), room.join(other)).unwrap();
            }),
            ("5 bytes were added to", |room, file, _| {
                let mut bytes = fs::read(room.join(file)).unwrap();
                bytes.extend_from_slice(b"added");
                fs::write(room.join(file), bytes).unwrap();
            }),
            ("bytes of 0000000000000005.wal are gone from its end", |room, file, _| {
                let bytes = fs::read(room.join(file)).unwrap();
                fs::write(room.join(file), &bytes[..8192]).unwrap();
            }),
        ];
        for (expected, harm) in cases {
            let room = tempfile::tempdir().unwrap();
            for entry in fs::read_dir(&fixture).unwrap().map(Result::unwrap) {
                fs::copy(entry.path(), room.path().join(entry.file_name())).unwrap();
            }
            harm(room.path(), &name(5), &name(6));
            let look = Look::at(room.path()).unwrap();
            let Verdict::Corrupt(damage) = look.scan.verdict() else { panic!("{expected}") };
            let hints: Vec<String> = damage.iter().filter_map(hint).collect();
            assert!(
                hints.iter().any(|hint| hint.contains(expected)),
                "{expected}: {damage:?} {hints:?}"
            );
        }
    }
}
