//! What can be known of a place without writing to it: its file system, its device, and the room there is.

use std::{fs, io, path::Path};

use rustix::{
    fs::statvfs,
    process::{Resource, getrlimit},
};
use serde::Serialize;

use crate::device::Device;

/// What lies around a directory. What the system does not tell is left out.
#[derive(Debug, Serialize)]
pub(crate) struct Surroundings {
    pub(crate) directory: String,
    #[serde(flatten)]
    pub(crate) mount: Option<Mount>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) write_cache: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) is_rotational: Option<bool>,
    pub(crate) free_bytes: u64,
    /// Left out where the file system has no bound of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) free_files: Option<u64>,
    /// Left out where there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) open_files: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) open_files_max: Option<u64>,
}

/// A line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Mount {
    pub(crate) file_system: String,
    pub(crate) mount_point: String,
    pub(crate) mount_source: String,
    /// Of the mount, then of the file system.
    pub(crate) mount_options: String,
}

impl Surroundings {
    /// Of `directory`, with its device if the kernel shows one.
    pub(crate) fn of(directory: &Path) -> io::Result<(Self, Option<Device>)> {
        let directory = fs::canonicalize(directory)?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mount = Mount::of(&directory, &mounts);
        let device = Device::of(&directory).ok().or_else(|| {
            let source = mount.as_ref().map(|mount| Path::new(&mount.mount_source))?;
            Device::behind(source).ok()
        });
        let space = statvfs(&directory)?;
        let limit = getrlimit(Resource::Nofile);
        let property = |name| device.as_ref().and_then(|device| device.property(name));
        let surroundings = Self {
            directory: directory.display().to_string(),
            device: device.as_ref().map(Device::name),
            write_cache: property("queue/write_cache"),
            is_rotational: property("queue/rotational").map(|text| text == "1"),
            mount,
            free_bytes: space.f_bavail.saturating_mul(space.f_frsize),
            free_files: (space.f_files > 0).then_some(space.f_favail),
            open_files: limit.current,
            open_files_max: limit.maximum,
        };
        Ok((surroundings, device))
    }

    /// Nothing written there outlives the machine's power.
    pub(crate) fn is_memory(&self) -> bool {
        ["tmpfs", "ramfs"].contains(&self.file_system())
    }

    /// The name of the file system; empty if it is not known.
    pub(crate) fn file_system(&self) -> &str {
        self.mount.as_ref().map_or("", |mount| &mount.file_system)
    }
}

impl Mount {
    /// The mount that `directory` lies in: the one with the longest path, of several there the last.
    fn of(directory: &Path, mounts: &str) -> Option<Self> {
        mounts
            .lines()
            .filter_map(Self::parse)
            .filter(|mount| directory.starts_with(&mount.mount_point))
            .max_by_key(|mount| Path::new(&mount.mount_point).components().count())
    }

    /// Fields as proc_pid_mountinfo(5) has them; how many stand before the hyphen differs.
    fn parse(line: &str) -> Option<Self> {
        let (own, of_file_system) = line.split_once(" - ")?;
        let own: Vec<&str> = own.split(' ').collect();
        let [file_system, source, options, ..] = of_file_system.split(' ').collect::<Vec<_>>()[..]
        else {
            return None;
        };
        // Both can say the same.
        let mut all: Vec<&str> = own.get(5)?.split(',').collect();
        all.extend(options.split(',').filter(|option| !own[5].split(',').any(|o| o == *option)));
        Some(Self {
            file_system: unescape(file_system),
            mount_point: unescape(own.get(4)?),
            mount_source: unescape(source),
            mount_options: unescape(&all.join(",")),
        })
    }
}

/// Blanks, line ends and backslashes are written as three octal digits behind a backslash.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                plain.push(char::from(code));
                plain.push_str(&part[3..]);
            }
            None => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,errors=remount-ro
30 21 0:26 / /data rw,nosuid - tmpfs none rw,size=1024k
31 21 8:1 /a /data/my\\040log rw shared:7 master:3 - xfs /dev/sda1 rw,attr2
32 21 8:2 / /data/my\\040log ro - btrfs /dev/sdb rw,subvol=/a\\134b
no mount at all
33 21 8:2 / /short";

    fn file_system(directory: &str) -> Option<String> {
        Mount::of(Path::new(directory), MOUNTS).map(|mount| mount.file_system)
    }

    #[test]
    fn a_directory_lies_in_the_innermost_mount_that_was_made_last() {
        for (directory, name) in [
            ("/", "ext4"),
            ("/datax", "ext4"),
            ("/data", "tmpfs"),
            ("/data/other", "tmpfs"),
            ("/data/my log/wal", "btrfs"),
        ] {
            assert_eq!(file_system(directory).as_deref(), Some(name), "{directory}");
        }
        assert_eq!(Mount::of(Path::new("/"), "not what a kernel writes"), None);
    }

    #[test]
    fn options_of_the_mount_and_of_the_file_system_are_told() {
        let mount = Mount::of(Path::new("/data/my log"), MOUNTS).unwrap();
        assert_eq!(mount.mount_point, "/data/my log");
        assert_eq!(mount.mount_options, "ro,rw,subvol=/a\\b");
        assert_eq!(mount.mount_source, "/dev/sdb");
        let root = Mount::of(Path::new("/"), MOUNTS).unwrap();
        assert_eq!(root.mount_options, "rw,relatime,errors=remount-ro", "each once");
    }
}
