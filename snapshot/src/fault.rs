//! What is wrong with bytes, and what can go wrong with a store.

use std::{io, sync::Arc};

use crate::header::Owner;

/// What is wrong at one place of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) offset: u64,
    pub(crate) what: &'static str,
    pub(crate) expected: u64,
    pub(crate) found: u64,
}

impl Fault {
    pub(crate) fn new(offset: u64, what: &'static str, expected: u64, found: u64) -> Self {
        Self { offset, what, expected, found }
    }

    pub(crate) fn of(self, image: &str) -> Corruption {
        let Self { offset, what, expected, found } = self;
        Corruption { image: image.to_owned(), offset, what, expected, found }
    }
}

/// An image that is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "corruption in {image} at offset {offset}: {what} (expected {expected:#x}, found {found:#x})"
)]
#[non_exhaustive]
pub struct Corruption {
    /// File name of the image.
    pub image: String,
    /// Byte offset in it.
    pub offset: u64,
    /// What failed: a noun phrase.
    pub what: &'static str,
    /// What the bytes should have given.
    pub expected: u64,
    /// What they gave.
    pub found: u64,
}

/// Why something cannot be done with a store of images.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk says no.
    #[error("{what} of {name} failed: {source}")]
    Io {
        /// What was tried: a noun.
        what: &'static str,
        /// On which file or directory.
        name: String,
        /// What the disk says.
        source: Arc<io::Error>,
    },
    /// An image is damaged.
    #[error(transparent)]
    Corruption(#[from] Corruption),
    /// An image of a version that this program does not know. Nothing was changed.
    #[error("{image} has version {found}: another release of this program has written it")]
    Version {
        /// File name of the image.
        image: String,
        /// Its version.
        found: u16,
    },
    /// An image of another cluster or log. Nothing was changed.
    #[error("{image} is of {found}, and not of {expected}")]
    OtherOwner {
        /// File name of the image.
        image: String,
        /// Whose image it should be.
        expected: Owner,
        /// Whose it is.
        found: Owner,
    },
    /// A membership, or an image that was offered, is beyond its limit.
    #[error("{what} of {bytes} bytes, the limit is {limit}")]
    TooLarge {
        /// What is.
        what: &'static str,
        /// Its length.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// An image that is no newer than the newest one.
    #[error("an image at index {index}, and one at index {newest} is there")]
    Stale {
        /// Index of the image.
        index: u64,
        /// Index of the newest one.
        newest: u64,
    },
    /// A piece of an image that does not follow on what has come, or lies behind its end.
    #[error("a piece at offset {offset}, and there are {expected} bytes")]
    Offset {
        /// Where the piece begins.
        offset: u64,
        /// Where the next one has to begin, or the image ends.
        expected: u64,
    },
}

impl StoreError {
    /// As an error of a reader or a writer: of the kind that the disk gave, or `InvalidData` of a damaged image.
    pub(crate) fn into_io(self) -> io::Error {
        let kind = match &self {
            Self::Io { source, .. } => source.kind(),
            _ => io::ErrorKind::InvalidData,
        };
        io::Error::new(kind, self)
    }

    pub(crate) fn io(what: &'static str, name: &str) -> impl FnOnce(io::Error) -> Self + use<> {
        let name = name.to_owned();
        move |source| Self::Io { what, name, source: Arc::new(source) }
    }
}
