//! The images of one node, in a directory of their own.

use std::{path::Path, sync::Arc};

use kontiki_disk::{Access, Directory, Disk};

use crate::{
    fault::{Corruption, Fault, StoreError},
    header::{Header, Place},
    image::Image,
    writer::{Finished, Receiver, Writer},
};

/// A directory of images. One owner changes it; what it gives out can be written and read elsewhere meanwhile.
#[derive(Debug)]
pub struct Store {
    directory: Arc<dyn Directory>,
    /// Newest first.
    images: Vec<Image>,
    damaged: Vec<Corruption>,
    /// Counts the temporary names.
    temporaries: u64,
}

impl Store {
    /// Opens the store in `directory`, which is made if it is missing, and removes what was not finished. Of an image only the
    /// header is read.
    ///
    /// # Errors
    /// `Io`, with kind `WouldBlock` if somebody else has it open.
    pub fn open(disk: &dyn Disk, directory: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = directory.as_ref();
        let name = path.display().to_string();
        let directory = disk
            .open_directory(path, Access::Write)
            .map_err(StoreError::io("the opening", &name))?;
        let files = directory.list().map_err(StoreError::io("the listing", &name))?;
        let mut store = Self { directory, images: Vec::new(), damaged: Vec::new(), temporaries: 0 };
        for (name, _) in files {
            if name.ends_with(TEMPORARY) {
                store.directory.remove(&name).map_err(StoreError::io("the removal", &name))?;
            } else if let Some(place) = place_of(&name) {
                store.take_in(&name, place)?;
            }
        }
        Ok(store)
    }

    fn take_in(&mut self, name: &str, place: Place) -> Result<(), StoreError> {
        let file = self.directory.open(name).map_err(StoreError::io("the opening", name))?;
        match Image::open(name, file) {
            Ok(image) if image.header().place == place => self.images.insert(0, image),
            Ok(image) => {
                let found = image.header().place.index;
                self.damaged.push(Fault::new(24, "place of an image", place.index, found).of(name));
            }
            Err(StoreError::Corruption(corruption)) => self.damaged.push(corruption),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// All images whose headers are whole, newest first. That their bytes are is found by reading them.
    pub fn images(&self) -> &[Image] {
        &self.images
    }

    /// Images whose headers are damaged.
    pub fn damaged(&self) -> &[Corruption] {
        &self.damaged
    }

    /// Begins an image.
    ///
    /// # Errors
    /// `Stale` if it would not be newer than the newest one; `Io`.
    ///
    /// # Panics
    /// If the membership is longer than [`MEMBERSHIP_BYTES_MAX`](crate::MEMBERSHIP_BYTES_MAX).
    pub fn create(&mut self, header: Header) -> Result<Writer, StoreError> {
        self.check_newer(header.place)?;
        let name = self.temporary_name();
        Writer::create(Arc::clone(&self.directory), name, header)
    }

    /// Begins to receive an image of another store.
    ///
    /// # Errors
    /// `Io`.
    pub fn receive(&mut self) -> Result<Receiver, StoreError> {
        let name = self.temporary_name();
        Receiver::create(Arc::clone(&self.directory), name)
    }

    /// Makes an image visible: from now on it is the newest one, whatever happens. The caller has seen to it that the log is
    /// durable up to its place.
    ///
    /// # Errors
    /// `Stale` if a newer one became visible meanwhile; `Io`: then it may be visible after the next opening, whole, or not.
    pub fn publish(&mut self, finished: Finished) -> Result<Image, StoreError> {
        let Finished { temporary, header } = finished;
        self.check_newer(header.place)?;
        let name = name_of(header.place);
        let directory = &self.directory;
        directory.rename(temporary.name(), &name).map_err(StoreError::io("the renaming", &name))?;
        temporary.keep();
        // The name is durable before anybody relies on it: the log's prefix goes on the strength of it.
        directory.sync().map_err(StoreError::io("a sync of the directory", &name))?;
        let file = directory.open(&name).map_err(StoreError::io("the opening", &name))?;
        let image = Image::open(&name, file)?;
        self.images.insert(0, image.clone());
        Ok(image)
    }

    /// Removes all but the newest `keep` images, and those that are damaged once so many whole ones are there; how many. Who holds
    /// an image can read on.
    ///
    /// # Errors
    /// `Io`; the next call goes on.
    ///
    /// # Panics
    /// If `keep` is 0.
    pub fn prune(&mut self, keep: usize) -> Result<usize, StoreError> {
        assert!(keep > 0, "a log that was compacted needs its image");
        let mut removed = 0;
        let remove =
            |name: &str| self.directory.remove(name).map_err(StoreError::io("the removal", name));
        while self.images.len() > keep {
            remove(self.images[self.images.len() - 1].name())?;
            self.images.pop();
            removed += 1;
        }
        while self.images.len() == keep
            && let Some(damaged) = self.damaged.last()
        {
            remove(&damaged.image)?;
            self.damaged.pop();
            removed += 1;
        }
        Ok(removed)
    }

    fn check_newer(&self, place: Place) -> Result<(), StoreError> {
        match self.images.first().map(|image| image.header().place) {
            Some(newest) if !place.is_newer_than(newest) => {
                Err(StoreError::Stale { index: place.index, newest: newest.index })
            }
            _ => Ok(()),
        }
    }

    fn temporary_name(&mut self) -> String {
        self.temporaries += 1;
        format!("{:016x}{TEMPORARY}", self.temporaries)
    }
}

/// Sorted by name, images are sorted by index.
fn name_of(place: Place) -> String {
    format!("{:016x}-{:016x}{VISIBLE}", place.index, place.term)
}

fn place_of(name: &str) -> Option<Place> {
    let (index, term) = name.strip_suffix(VISIBLE)?.split_once('-')?;
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    let place = Place { index: number(index)?, term: number(term)? };
    (name_of(place) == name).then_some(place)
}

const TEMPORARY: &str = ".tmp";
const VISIBLE: &str = ".image";
