//! An image of another store, on its way here.

use std::sync::Arc;

use kontiki_disk::Directory;

use crate::{
    decoder::{Decoder, Unit},
    fault::{Fault, StoreError},
    header::{Header, Owner, Place},
    temporary::{Finished, Temporary},
};

/// What a sender says of an image before its bytes; they are held against it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Whose image it is.
    pub owner: Owner,
    /// The last entry it contains.
    pub place: Place,
    /// Bytes of its file, as [`Image::bytes`](crate::Image::bytes) has them.
    pub bytes: u64,
}

/// Takes the bytes of another store's image, in pieces of any length. Nothing is written that was not checked, so what does not
/// belong to the image ends it where it comes. What was received stays when a connection breaks; the next piece goes on behind.
///
/// Holds one header or one block at a time, and no more of it than has come.
#[derive(Debug)]
pub struct Receiver {
    temporary: Temporary,
    offer: Offer,
    decoder: Decoder,
    /// Once it has come, and is the one that was offered.
    header: Option<Header>,
}

impl Receiver {
    pub(crate) fn create(
        directory: Arc<dyn Directory>,
        name: String,
        offer: Offer,
    ) -> Result<Self, StoreError> {
        let decoder = Decoder::new(&name, offer.bytes);
        let temporary = Temporary::create(directory, name)?;
        Ok(Self { temporary, offer, decoder, header: None })
    }

    /// Takes a piece that begins at `offset` of the image's file.
    ///
    /// # Errors
    /// `Offset` if that is not behind what has come, which then stays as it is. All others are final, come again each time, and
    /// leave nothing of it: `Corruption` if the bytes are not those of a whole image, or of another one than was offered;
    /// `Version`; `Io`.
    pub fn append(&mut self, offset: u64, piece: &[u8]) -> Result<(), StoreError> {
        self.temporary.check()?;
        let expected = self.received();
        if offset != expected {
            return Err(StoreError::Offset { offset, expected });
        }
        self.take(piece).map_err(|error| self.temporary.fail(error))
    }

    fn take(&mut self, mut piece: &[u8]) -> Result<(), StoreError> {
        let (end, most) = (self.received() + piece.len() as u64, self.offer.bytes);
        if end > most {
            return Err(self.refused(Fault::new(most, "length of an image", most, end)));
        }
        while !piece.is_empty() {
            let (now, later) = piece.split_at(self.decoder.missing()?.min(piece.len()));
            piece = later;
            let fill = |into: &mut [u8]| {
                into.copy_from_slice(now);
                Ok(())
            };
            let Some(unit) = self.decoder.take(now.len(), fill)? else { continue };
            if let Unit::Header(header) = unit {
                let Offer { owner, place, .. } = self.offer;
                let checked = header.check_owner(owner).and_then(|()| header.check_place(place));
                checked.map_err(|fault| self.refused(fault))?;
                self.header = Some(header);
            }
            self.temporary.append(&[self.decoder.unit()])?;
            self.decoder.pass();
        }
        Ok(())
    }

    /// All has come: makes it durable.
    ///
    /// # Errors
    /// `Corruption` if the image's end has not come; `Io`; what it has failed with before. Then nothing of it is left.
    pub fn finish(self) -> Result<Finished, StoreError> {
        self.temporary.check()?;
        if !self.decoder.is_over() {
            // An offer that is too short for what has come is told as that.
            self.decoder.missing()?;
            let (found, expected) = (self.received(), self.offer.bytes);
            return Err(self.refused(Fault::new(found, "end of an image", expected, found)));
        }
        let header = self.header.expect("a header comes before an end");
        self.temporary.finish(header)
    }

    /// Bytes that have come: where the next piece begins.
    pub fn received(&self) -> u64 {
        self.decoder.taken()
    }

    fn refused(&self, fault: Fault) -> StoreError {
        fault.of(self.decoder.image()).into()
    }
}
