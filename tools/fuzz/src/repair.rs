//! Whole directories: what a repair makes of them.

use std::sync::Arc;

use kontiki_disk::Disk;
use kontiki_wal::{
    OpenError,
    inspect::{Scan, Verdict},
    repair::{self, Diagnosis, RepairError},
};

use super::{
    directory::{DIRECTORY, Directory, unpack},
    recovery::{heap, open, options, shown},
    within,
};

/// Tells what is damaged, cuts the log, and salvages it: each is done or refused, and what is done leaves a whole log.
pub fn repair(input: &[u8]) {
    let directory = unpack(input);
    let before = directory.disk.operations();
    // Several disks more than a look has.
    within(4 * heap(&directory), || {
        let diagnosis = Diagnosis::of_on(&directory.disk, DIRECTORY);
        assert_eq!(directory.disk.operations(), before, "a dry run changes nothing");
        let Ok(diagnosis) = diagnosis else { return };
        truncate(&directory, &diagnosis);
        salvage(&directory);
    });
    assert_eq!(directory.disk.operations(), before, "the log itself is left alone");
}

fn truncate(directory: &Directory, diagnosis: &Diagnosis) {
    let disk = directory.disk.reopen();
    match repair::truncate_on(&disk, DIRECTORY) {
        Ok(None) => assert!(diagnosis.damage.is_empty()),
        Ok(Some(_)) => {
            assert!(diagnosis.truncation.is_ok());
            let again = repair::truncate_on(&disk, DIRECTORY).expect("it was cut");
            assert!(again.is_none(), "once is enough");
            match open(directory, &disk.image(|_| false), 1) {
                Ok(wal) => drop(shown(&wal)),
                Err(OpenError::Options { .. }) => {}
                Err(error) => panic!("what was cut opens: {error}"),
            }
        }
        Err(RepairError::NoCut { .. }) => assert!(diagnosis.truncation.is_err()),
        Err(error) => panic!("the disk did not fail: {error}"),
    }
}

fn salvage(directory: &Directory) {
    let disk = directory.disk.reopen();
    let seam: Arc<dyn Disk> = Arc::new(disk.clone());
    match repair::salvage_on(&seam, DIRECTORY, "new") {
        Ok(salvaged) => {
            let scan = Scan::open_on(&disk.image(|_| false), "new").expect("there is a log");
            assert!(matches!(scan.verdict(), Verdict::Whole { closed: true, .. }));
            let wal = options(directory, &disk, 1).open("new").expect("what was salvaged opens");
            assert!(wal.logs().len() <= salvaged.logs.len(), "every log is told of");
            shown(&wal);
        }
        // Of logs that no writer made there can be too many for one.
        Err(RepairError::NothingLeft | RepairError::Append(_)) => {}
        Err(error) => panic!("the disk did not fail: {error}"),
    }
}
