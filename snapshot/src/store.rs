//! The images of one node, in a directory of their own.

use std::{io::ErrorKind::NotFound, path::Path, sync::Arc};

use kontiki_disk::{Access, Directory, Disk};

use crate::{
    fault::StoreError,
    header::{Header, MEMBERSHIP_BYTES_MAX, Owner, Place},
    image::Image,
    receiver::{Offer, Receiver},
    temporary::Finished,
    writer::Writer,
};

/// A directory of images. One store changes it; what it gives out can be written and read elsewhere meanwhile, and holds the
/// directory's lock as the store does: while an image, a reader, a writer or a receiver of it is alive, nobody else opens the
/// directory, so that nobody removes or replaces what is still being read.
#[derive(Debug)]
pub struct Store {
    directory: Arc<dyn Directory>,
    /// Whose images it holds, if that is checked.
    owner: Option<Owner>,
    /// Newest first.
    images: Vec<Image>,
    damaged: Vec<Damaged>,
    /// Counts the temporary names.
    temporaries: u64,
    /// A sync of the directory failed: what is durable in it is not known, and nothing is done any more.
    failed: Option<StoreError>,
}

/// An image that cannot be used.
#[derive(Clone, Debug)]
pub struct Damaged {
    /// Name of its file.
    pub image: String,
    /// What is wrong with it.
    pub error: StoreError,
}

impl Store {
    /// Opens the store in `directory`, which is made if it is missing, and removes what was not finished. Of an image only the
    /// header is read. All images are of `owner`; a tool that takes every store gives `None`, and then nobody's is refused.
    ///
    /// # Errors
    /// `Io`, with kind `WouldBlock` while a store that has it open, or something that one gave out, is alive; `Version` if an
    /// image is of another release, and `OtherOwner` if one is of another cluster or log: nothing was changed then.
    pub fn open(
        disk: &dyn Disk,
        directory: impl AsRef<Path>,
        owner: Option<Owner>,
    ) -> Result<Self, StoreError> {
        let path = directory.as_ref();
        let shown = path.display().to_string();
        let directory = disk
            .open_directory(path, Access::Write)
            .map_err(StoreError::io("the opening", &shown))?;
        let files = directory.list().map_err(StoreError::io("the listing", &shown))?;
        let (images, damaged, failed) = (Vec::new(), Vec::new(), None);
        let mut store = Self { directory, owner, images, damaged, temporaries: 0, failed };
        for (name, _) in &files {
            if let Some(place) = place_of(name) {
                store.take_in(name, place)?;
            }
        }
        // A life that ended between a renaming and the end of its sync has left a name that a power cut can still take back; and
        // whoever finds the image lets go of what it replaces.
        if !store.images.is_empty() {
            store.directory.sync().map_err(StoreError::io("a sync of the directory", &shown))?;
        }
        for (name, _) in files.iter().filter(|(name, _)| is_temporary(name)) {
            store.directory.remove(name).map_err(StoreError::io("the removal", name))?;
        }
        Ok(store)
    }

    fn take_in(&mut self, name: &str, place: Place) -> Result<(), StoreError> {
        let file = self.directory.open(name).map_err(StoreError::io("the opening", name));
        let opened = file.and_then(|file| Image::open(name, file)).and_then(|image| {
            // Before its place: whose it is counts under every name.
            self.check_owner(name, image.header().owner())?;
            image.header().check_place(place).map_err(|fault| fault.of(name))?;
            Ok(image)
        });
        match opened {
            Ok(image) => self.images.insert(0, image),
            Err(error @ (StoreError::Version { .. } | StoreError::OtherOwner { .. })) => {
                return Err(error);
            }
            // A sector that cannot be read is no reason not to use another image.
            Err(error) => self.damaged.push(Damaged { image: name.to_owned(), error }),
        }
        Ok(())
    }

    /// Looks at the images in `directory` without opening it as a store: newest first, with what is wrong with those that cannot be
    /// used. Nothing is changed and no lock is taken, so a store may be at work there: an image that it removes meanwhile is
    /// left out, or can be read to its end.
    ///
    /// # Errors
    /// `Io`, with kind `NotFound` if there is no such directory.
    pub fn look(
        disk: &dyn Disk,
        directory: impl AsRef<Path>,
    ) -> Result<Vec<Result<Image, Damaged>>, StoreError> {
        let path = directory.as_ref();
        let shown = path.display().to_string();
        let directory = disk
            .open_directory(path, Access::Read)
            .map_err(StoreError::io("the opening", &shown))?;
        let files = directory.list().map_err(StoreError::io("the listing", &shown))?;
        let mut images = Vec::new();
        for (name, _) in files.iter().rev().filter(|(name, _)| place_of(name).is_some()) {
            let file = directory.open(name).map_err(StoreError::io("the opening", name));
            match file.and_then(|file| Image::open(name, file)) {
                Err(StoreError::Io { source, .. }) if source.kind() == NotFound => {}
                found => {
                    let damaged = |error| Damaged { image: name.clone(), error };
                    images.push(found.map_err(damaged));
                }
            }
        }
        Ok(images)
    }

    /// All images whose headers are whole, newest first. That their bytes are is found by reading them.
    pub fn images(&self) -> &[Image] {
        &self.images
    }

    /// Images that cannot be used.
    pub fn damaged(&self) -> &[Damaged] {
        &self.damaged
    }

    /// Why this store does nothing any more, if it does not: what is durable in its directory is not known.
    pub fn failure(&self) -> Option<&StoreError> {
        self.failed.as_ref()
    }

    /// Somebody has read an image and found it damaged: it counts as one that cannot be used from now on.
    pub fn set_aside(&mut self, image: &Image, error: StoreError) {
        let name = image.name();
        if let Some(place) = self.images.iter().position(|known| known.name() == name) {
            self.images.remove(place);
            self.damaged.push(Damaged { image: name.to_owned(), error });
        }
    }

    /// Begins an image.
    ///
    /// # Errors
    /// `Stale` if it would not be newer than the newest one that can be used; `TooLarge` if its membership is; `OtherOwner`;
    /// `Io`.
    pub fn create(&mut self, header: Header) -> Result<Writer, StoreError> {
        self.check_begun(header.owner(), header.place)?;
        let (bytes, limit) = (header.membership.len() as u64, MEMBERSHIP_BYTES_MAX as u64);
        if bytes > limit {
            return Err(StoreError::TooLarge { what: "a membership", bytes, limit });
        }
        let name = self.temporary_name();
        Writer::create(Arc::clone(&self.directory), name, header)
    }

    /// Begins to receive an image of another store, as its sender offers it; one whose file is longer than `bytes_max` is not
    /// taken.
    ///
    /// # Errors
    /// `Stale` if it would not be newer than the newest one that can be used; `TooLarge` if it is; `OtherOwner`; `Io`.
    pub fn receive(&mut self, offer: Offer, bytes_max: u64) -> Result<Receiver, StoreError> {
        self.check_begun(offer.owner, offer.place)?;
        let (bytes, limit) = (offer.bytes, bytes_max);
        if bytes > limit {
            return Err(StoreError::TooLarge { what: "an image", bytes, limit });
        }
        let name = self.temporary_name();
        Receiver::create(Arc::clone(&self.directory), name, offer)
    }

    /// Makes an image visible: from now on it is the newest one, whatever happens. The caller has seen to it that its
    /// log is durable up to the place of one that it has taken; behind a peer's the log begins anew later. A damaged one of the same
    /// place is replaced.
    ///
    /// # Errors
    /// `Stale` if a newer one became visible meanwhile; `Io`. If the directory could not be synced it may be visible after the
    /// next opening, whole, or not, and this store does nothing any more.
    ///
    /// # Panics
    /// If it was begun by another store.
    pub fn publish(&mut self, finished: Finished) -> Result<Image, StoreError> {
        self.check_failed()?;
        let Finished { temporary, header } = finished;
        assert!(
            Arc::ptr_eq(&self.directory, &temporary.directory),
            "an image is published by the store that began it"
        );
        self.check_newer(header.place)?;
        let (name, directory) = (name_of(header.place), &self.directory);
        // Opened first: behind the renaming nothing but the sync can fail.
        let file = directory.open(temporary.name());
        let file = file.map_err(StoreError::io("the opening", temporary.name()))?;
        let image = Image::open(&name, file)?;
        assert!(*image.header() == header, "a file holds what was written to it");
        directory.rename(temporary.name(), &name).map_err(StoreError::io("the renaming", &name))?;
        temporary.keep();
        // The name is durable before anybody relies on it: the log's prefix goes on the strength of it.
        let synced = directory.sync().map_err(StoreError::io("a sync of the directory", &name));
        if let Err(error) = synced {
            self.failed = Some(error.clone());
            return Err(error);
        }
        self.damaged.retain(|damaged| damaged.image != name);
        self.images.insert(0, image.clone());
        Ok(image)
    }

    /// Removes all but the newest `keep` images, and those that cannot be used once so many others are there; how many. Who
    /// holds an image can read on.
    ///
    /// # Errors
    /// `Io`; the next call goes on.
    ///
    /// # Panics
    /// If `keep` is 0.
    pub fn prune(&mut self, keep: usize) -> Result<usize, StoreError> {
        assert!(keep > 0, "a log that was compacted needs its image");
        self.check_failed()?;
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

    fn check_failed(&self) -> Result<(), StoreError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// That an image may be begun: who opens the store again finds none that it would refuse.
    fn check_begun(&self, owner: Owner, place: Place) -> Result<(), StoreError> {
        self.check_failed()?;
        self.check_owner(&name_of(place), owner)?;
        self.check_newer(place)
    }

    fn check_owner(&self, name: &str, found: Owner) -> Result<(), StoreError> {
        match self.owner {
            Some(expected) if expected != found => {
                Err(StoreError::OtherOwner { image: name.to_owned(), expected, found })
            }
            _ => Ok(()),
        }
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
        temporary_name(self.temporaries)
    }
}

fn temporary_name(number: u64) -> String {
    format!("{number:016x}{TEMPORARY}")
}

fn is_temporary(name: &str) -> bool {
    let number = name.strip_suffix(TEMPORARY).and_then(|text| u64::from_str_radix(text, 16).ok());
    number.is_some_and(|number| temporary_name(number) == name)
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
