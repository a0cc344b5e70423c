use proptest::prelude::*;

use super::*;
use crate::transport::MESSAGE_BYTES_MAX;

const SILENCE: Duration = Duration::from_secs(1);

/// Gives its bytes in parts of the given sizes, over and over, and is never asked to fill more than
/// a reader may hold of what has not arrived.
struct Parts<'a> {
    rest: &'a [u8],
    sizes: Vec<usize>,
    reads: usize,
    given: usize,
}

impl<'a> Parts<'a> {
    fn new(rest: &'a [u8], sizes: Vec<usize>) -> Self {
        Self { rest, sizes, reads: 0, given: 0 }
    }
}

impl Read for Parts<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        assert!(room.len() <= TRUST_BYTES.max(self.given), "{} after {}", room.len(), self.given);
        let size = self.sizes[self.reads % self.sizes.len()];
        let size = size.min(room.len()).min(self.rest.len());
        let (part, rest) = self.rest.split_at(size);
        room[..size].copy_from_slice(part);
        (self.rest, self.reads, self.given) = (rest, self.reads + 1, self.given + size);
        Ok(size)
    }
}

fn frame(group: u32, payload: &Bytes) -> Vec<u8> {
    let chunks = std::slice::from_ref(payload);
    let header = wire::encode_frame_header(FrameKind::Message, group, chunks);
    [&header[..], payload].concat()
}

fn payload(bytes: usize) -> Bytes {
    (0..bytes).map(|i| u8::try_from(i % 253).unwrap()).collect::<Vec<_>>().into()
}

#[test]
fn many_short_frames_are_one_read() {
    let mut bytes = Vec::new();
    for group in 0..100 {
        bytes.extend_from_slice(&frame(group, &payload(30)));
    }
    let mut frames = FrameReader::new(Parts::new(&bytes, vec![usize::MAX]), 64 << 10, SILENCE);
    for group in 0..100 {
        let frame = frames.next(&mut || {}).unwrap();
        assert_eq!((frame.group, frame.payload), (group, payload(30)));
    }
    assert_eq!(frames.source.reads, 1);
}

#[test]
fn an_end_between_frames_is_told_from_an_end_within_one() {
    let bytes = frame(1, &payload(100));
    for end in 0..=bytes.len() {
        let mut frames = FrameReader::new(&bytes[..end], 1 << 10, SILENCE);
        let error = loop {
            match frames.next(&mut || {}) {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        let whole = end == 0 || end == bytes.len();
        assert!(matches!(error, ReadError::Closed) == whole, "{end}: {error:?}");
        assert!(matches!(error, ReadError::Cut) != whole, "{end}: {error:?}");
    }
}

/// The assertion is in `Parts::read`.
#[test]
fn a_liar_costs_no_more_than_it_sends_or_the_trust() {
    let whole = payload(MESSAGE_BYTES_MAX);
    let bytes = frame(1, &whole);
    for sent in [20, 1000, 3 << 20, bytes.len()] {
        let parts = Parts::new(&bytes[..sent], vec![100_000]);
        let mut frames = FrameReader::new(parts, 64 << 10, SILENCE);
        match frames.next(&mut || {}) {
            Ok(frame) => assert!(sent == bytes.len() && frame.payload == whole),
            Err(error) => assert!(matches!(error, ReadError::Cut), "{error:?}"),
        }
    }
}

#[test]
fn only_the_parts_of_a_long_frame_are_told() {
    for (size, told) in [(1000, 0), (100_000, 10)] {
        let bytes = frame(1, &payload(size));
        let mut parts = 0;
        let source = Parts::new(&bytes, vec![10_000]);
        FrameReader::new(source, 16 << 10, SILENCE).next(&mut || parts += 1).unwrap();
        assert!(parts >= told && (parts == 0) == (told == 0), "{size}: {parts}");
    }
}

/// Keeping a message must not keep a read buffer.
#[test]
fn a_short_payload_is_its_own_allocation() {
    let bytes = [frame(1, &payload(10)), frame(2, &payload(10))].concat();
    let mut frames = FrameReader::new(&bytes[..], 64 << 10, SILENCE);
    let kept = frames.next(&mut || {}).unwrap().payload;
    frames.next(&mut || {}).unwrap();
    let buffer = frames.buffer.as_ptr_range();
    assert!(!buffer.contains(&kept.as_ptr()));
    assert_eq!(kept.try_into_mut().unwrap().capacity(), 10);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn frames_come_back_however_they_are_cut(
        sizes in prop::collection::vec(0_usize..3000, 1..20),
        parts in prop::collection::vec(1_usize..2000, 1..10),
        buffer_bytes in 160_usize..4096,
    ) {
        let bytes: Vec<u8> = sizes.iter().flat_map(|size| frame(9, &payload(*size))).collect();
        let mut frames = FrameReader::new(Parts::new(&bytes, parts), buffer_bytes, SILENCE);
        for size in sizes {
            prop_assert_eq!(frames.next(&mut || {}).unwrap().payload, payload(size));
        }
        let end = frames.next(&mut || {}).unwrap_err();
        prop_assert!(matches!(end, ReadError::Closed));
    }

    /// No panic, no endless loop, no frame that was not sent.
    #[test]
    fn a_damaged_stream_gives_whole_frames_and_then_an_error(
        sizes in prop::collection::vec(0_usize..600, 1..8),
        parts in prop::collection::vec(1_usize..500, 1..10),
        damage in prop::collection::vec((any::<prop::sample::Index>(), 1_u8..), 1..4),
    ) {
        let sent: Vec<_> = sizes.iter().map(|size| frame(9, &payload(*size))).collect();
        let mut bytes = sent.concat();
        for (place, flip) in damage {
            let place = place.index(bytes.len());
            bytes[place] ^= flip;
        }
        let whole = sent.concat().iter().zip(&bytes).take_while(|(sent, now)| sent == now).count();
        let mut frames = FrameReader::new(Parts::new(&bytes, parts), 1024, SILENCE);
        let (mut read, mut end) = (0, 0);
        while frames.next(&mut || {}).is_ok() {
            end += sent[read].len();
            read += 1;
            prop_assert!(end <= whole || bytes == sent.concat());
        }
    }
}
