use proptest::prelude::*;

use super::*;

/// Takes at most `room` bytes of each write, and counts the writes.
struct Narrow {
    taken: Vec<u8>,
    room: usize,
    writes: usize,
    slices_max: usize,
}

impl Narrow {
    fn new(room: usize) -> Self {
        Self { taken: Vec::new(), room, writes: 0, slices_max: 0 }
    }
}

impl Write for Narrow {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.writes += 1;
        self.slices_max = self.slices_max.max(slices.len());
        let mut left = self.room;
        for slice in slices {
            let part = &slice[..slice.len().min(left)];
            self.taken.extend_from_slice(part);
            left -= part.len();
        }
        Ok(self.room - left)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_burst_of_small_messages_is_one_write() {
    let (mut gather, mut out) = (Gather::default(), Narrow::new(usize::MAX));
    let chunk = Bytes::from(vec![1; 128]);
    for _ in 0..1024 {
        gather.frame(&mut out, FrameKind::Message, 0, std::slice::from_ref(&chunk)).unwrap();
    }
    gather.flush(&mut out).unwrap();
    assert_eq!((out.writes, out.slices_max), (1, 1));
    assert_eq!(out.taken.len(), 1024 * (128 + wire::FRAME_HEADER_BYTES));
}

#[test]
fn a_large_chunk_is_written_from_where_it_lies() {
    let (mut gather, mut out) = (Gather::default(), Narrow::new(usize::MAX));
    let chunk = Bytes::from(vec![1; 1 << 20]);
    gather.frame(&mut out, FrameKind::Message, 0, std::slice::from_ref(&chunk)).unwrap();
    assert_eq!(gather.staged.len(), wire::FRAME_HEADER_BYTES);
    gather.flush(&mut out).unwrap();
    assert_eq!((out.writes, out.slices_max), (1, 2));
    // And is let go when it is written.
    assert!(chunk.try_into_mut().is_ok());
}

#[test]
fn what_is_gathered_is_bounded() {
    let (mut gather, mut out) = (Gather::default(), Narrow::new(usize::MAX));
    let (small, large) = (Bytes::from(vec![1; 4095]), Bytes::from(vec![2; 4096]));
    for _ in 0..1000 {
        gather.frame(&mut out, FrameKind::Message, 0, &[small.clone(), large.clone()]).unwrap();
        assert!(gather.staged.len() < STAGED_BYTES_MAX + CHUNK_BYTES_MIN);
    }
    assert!(out.slices_max <= SLICES_MAX + 1, "{}", out.slices_max);
}

#[test]
fn a_socket_that_takes_nothing_is_an_error() {
    let (mut gather, mut out) = (Gather::default(), Narrow::new(0));
    gather.frame(&mut out, FrameKind::Keepalive, 0, &[]).unwrap();
    assert_eq!(gather.flush(&mut out).unwrap_err().kind(), ErrorKind::WriteZero);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn bytes_leave_in_order_however_little_a_write_takes(
        messages in prop::collection::vec(prop::collection::vec(0_usize..9000, 0..4), 1..20),
        room in 1_usize..20_000,
    ) {
        let (mut gather, mut out, mut expected) =
            (Gather::default(), Narrow::new(room), Vec::new());
        for (group, sizes) in (0..).zip(&messages) {
            let chunk = |size: &usize| Bytes::from(vec![u8::try_from(size % 256).unwrap(); *size]);
            let chunks: Vec<_> = sizes.iter().map(chunk).collect();
            let header = wire::encode_frame_header(FrameKind::Message, group, &chunks);
            expected.extend_from_slice(&header);
            chunks.iter().for_each(|chunk| expected.extend_from_slice(chunk));
            gather.frame(&mut out, FrameKind::Message, group, &chunks).unwrap();
        }
        gather.flush(&mut out).unwrap();
        prop_assert!(out.taken == expected);
    }
}
