//! Where what lies in frames and header pages, by wal/FORMAT.md: names are the format's, in its order.

use bytes::Bytes;
use kontiki_wal::inspect::{FrameKind, HeaderPage, RawFrame};

use crate::{
    arguments::Kind,
    fields::{Field, Fields, Value, little_endian},
    place,
};

/// The fields of a frame: of its header, and of its body if how long that is can be told.
pub(crate) fn of_frame(raw: &RawFrame) -> Vec<Field> {
    let mut fields = Fields::of(&raw.bytes, raw.offset);
    let header = fields.take_header();
    fields.check_crc("header_crc", Some(raw.header_crc), "the rest of the header, here, gives");
    fields.check_crc("link", raw.link, "the frame before has");
    fields.check_crc("body_crc", raw.body_crc, "the body gives");
    let header = match &raw.header_before {
        Some(before) => {
            let mut were = Fields::of(&Bytes::copy_from_slice(before), raw.offset);
            let header = were.take_header();
            fields.compare(&were);
            header
        }
        None => header,
    };
    if let Some(Header { kind: Some(kind), body_len, count, first_index }) = header {
        let body = raw.bytes.slice(..raw.bytes.len().min(HEADER_BYTES.saturating_add(body_len)));
        let whole = std::mem::replace(&mut fields.bytes, body);
        match kind {
            FrameKind::SegmentStart => fields.take_start(),
            FrameKind::Checkpoint => fields.take_checkpoint(),
            FrameKind::Entries => fields.take_entries(count, first_index),
            FrameKind::State => drop(fields.take_bytes("state", body_len)),
            FrameKind::Freed => while fields.take_u64("freed segment").is_some() {},
            _ => {}
        }
        fields.take_rest("body");
        fields.bytes = whole;
    }
    fields.take_zeros("padding", usize::MAX);
    fields.all
}

/// The fields of a header page. What a later version may use is only wrong where the page does not hold.
pub(crate) fn of_header_page(page: &HeaderPage) -> Vec<Field> {
    let mut fields = Fields::of(&page.bytes, 0);
    fields.take_text("magic", 8, |bytes| bytes.escape_ascii().to_string());
    for name in ["format", "features needed", "features used"] {
        fields.take_u32(name);
    }
    let take_zeros = match page.fault {
        Some(_) => Fields::take_zeros,
        None => Fields::take_unused,
    };
    take_zeros(&mut fields, "zeros", 4);
    fields.take_text("uuid", 16, place::hex);
    fields.take_u64("sequence number");
    fields.take_u64("size of the segment");
    fields.take_bytes("owner", 32);
    take_zeros(&mut fields, "zeros", CRC_AT - 88);
    fields.take_crc("crc");
    fields.check_crc("crc", page.crc, "the rest of the page gives");
    fields.take_rest("cut");
    fields.all
}

/// What the header says that the body depends on.
struct Header {
    /// `None` if it is not known.
    kind: Option<FrameKind>,
    body_len: usize,
    count: u16,
    first_index: u64,
}

impl Fields {
    fn take_header(&mut self) -> Option<Header> {
        for name in ["header_crc", "link", "body_crc"] {
            self.take_crc(name);
        }
        let body_len = usize::try_from(self.take_u32("body_len")?).ok()?;
        let kind = self.take("kind", 1, |bytes| match FrameKind::from_byte(bytes[0]) {
            Some(kind) => Value::Text(format!("{} {}", bytes[0], Kind::from(kind).name())),
            None => Value::Text(format!("{} unknown", bytes[0])),
        })?;
        let kind = FrameKind::from_byte(kind[0]);
        self.take("flags", 1, |bytes| match bytes[0] {
            1 => Value::Text("1 closed".to_owned()),
            _ => little_endian(bytes),
        });
        let count = self.take("count", 2, little_endian)?;
        self.take_u32("log");
        let has_nonce = matches!(kind, Some(FrameKind::SegmentStart | FrameKind::Opened));
        let first_index = self.take("first_index", 8, |bytes| match little_endian(bytes) {
            Value::Number(nonce) if has_nonce => Value::Text(format!("nonce {nonce:#018x}")),
            index => index,
        })?;
        self.take_u64("term");
        self.take_u64("durable_lsn");
        Some(Header {
            kind,
            body_len,
            count: u16::from_le_bytes([count[0], count[1]]),
            first_index: u64::from_le_bytes(*first_index.first_chunk()?),
        })
    }

    fn take_start(&mut self) {
        if self.take_text("uuid", 16, place::hex).is_some() {
            self.take_u64("base lsn");
            self.take_u64("segment before");
        }
    }

    fn take_checkpoint(&mut self) {
        let (logs, runs) = (self.take_u32("logs"), self.take_u32("runs of segments"));
        for number in 0..runs.unwrap_or(0) {
            self.take_u64(&format!("run {number} first segment"));
            if self.take_u64(&format!("run {number} last segment")).is_none() {
                return;
            }
        }
        for _ in 0..logs.unwrap_or(0) {
            if self.take_log_of_checkpoint().is_none() {
                return;
            }
        }
    }

    fn take_log_of_checkpoint(&mut self) -> Option<()> {
        self.take_u32("log")?;
        let runs = self.take_u32("runs of terms")?;
        for name in ["first index", "last index", "term before"] {
            self.take_u64(name)?;
        }
        let length = self.take("state length", 4, |bytes| match little_endian(bytes) {
            Value::Number(0xffff_ffff) => Value::Text("no state".to_owned()),
            length => length,
        })?;
        for number in 0..runs {
            self.take_u64(&format!("run {number} first index"))?;
            self.take_u64(&format!("run {number} term"))?;
        }
        let length = u32::from_le_bytes(*length.first_chunk()?);
        if length != u32::MAX {
            self.take_bytes("state", usize::try_from(length).ok()?)?;
        }
        Some(())
    }

    fn take_entries(&mut self, count: u16, first_index: u64) {
        let indexes = (0..count).map(|number| first_index.saturating_add(number.into()));
        let mut start = 0;
        let mut lengths = Vec::new();
        for index in indexes.clone() {
            let Some(end) = self.take_u32(&format!("end of {index}")) else { return };
            let Some(length) = end.checked_sub(start) else {
                self.mark("before the one before");
                return;
            };
            (start, _) = (end, lengths.push(length));
        }
        for (index, length) in indexes.zip(lengths) {
            let left = self.left();
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            self.take_bytes(&format!("entry {index}"), length.min(left));
        }
    }
}

const HEADER_BYTES: usize = 48;
const CRC_AT: usize = 4092;

#[cfg(test)]
mod tests {
    use kontiki_wal::OpenError;

    use super::*;

    /// The worked example of wal/FORMAT.md, byte for byte.
    const EXAMPLE: [u8; 64] = [
        0xa4, 0x49, 0x6e, 0xed, 1, 2, 3, 4, 0x61, 0xec, 0x84, 0x51, 11, 0, 0, 0, //
        3, 0, 2, 0, 1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, //
        7, 0, 0, 0, 0, 0, 0, 0, 128, 0, 0, 0, 0, 0, 0, 0, //
        1, 0, 0, 0, 3, 0, 0, 0, b'a', b'b', b'c', 0, 0, 0, 0, 0,
    ];

    fn raw(bytes: &[u8]) -> RawFrame {
        RawFrame {
            segment: 1,
            file: "1.wal".to_owned(),
            offset: 4240,
            lsn: None,
            bytes: Bytes::copy_from_slice(bytes),
            header_crc: 0xed6e_49a4,
            link: Some(0x0403_0201),
            body_crc: Some(0x5184_ec61),
            header_before: None,
            fault: None,
        }
    }

    #[test]
    fn the_example_of_the_format_reads_as_the_format_says() {
        let fields = of_frame(&raw(&EXAMPLE));
        let shown: Vec<(usize, &str, String)> = fields
            .iter()
            .map(|field| {
                let value = field.value.as_ref().map_or("-".to_owned(), Value::text);
                (field.at, field.name.as_str(), value)
            })
            .collect();
        let expected = [
            (0, "header_crc", "0xed6e49a4"),
            (4, "link", "0x04030201"),
            (8, "body_crc", "0x5184ec61"),
            (12, "body_len", "11"),
            (16, "kind", "3 entries"),
            (17, "flags", "0"),
            (18, "count", "2"),
            (20, "log", "1"),
            (24, "first_index", "5"),
            (32, "term", "7"),
            (40, "durable_lsn", "128"),
            (48, "end of 5", "1"),
            (52, "end of 6", "3"),
            (56, "entry 5", "-"),
            (57, "entry 6", "-"),
            (59, "padding", "-"),
        ];
        assert_eq!(shown, expected.map(|(at, name, value)| (at, name, value.to_owned())));
        assert!(fields.iter().all(|field| field.wrong.is_none()));
        assert_eq!((&fields[14].bytes[..], fields[14].offset), (&b"bc"[..], 4240 + 57));
    }

    /// A later version may use them, and this one reads its pages.
    #[test]
    fn zeros_of_a_header_page_that_are_none_are_wrong_only_where_it_does_not_hold() {
        let mut bytes = vec![0; 4096];
        (bytes[20], bytes[100]) = (1, 1);
        let (file, bytes) = ("1.wal".to_owned(), Bytes::from(bytes));
        let mut page = HeaderPage { segment: 1, file, bytes, crc: None, fault: None };
        let wrong = |page: &HeaderPage| {
            of_header_page(page).iter().filter(|field| field.wrong.is_some()).count()
        };
        assert_eq!(wrong(&page), 0);
        page.fault =
            Some(OpenError::NewerFormat { segment: "1.wal".into(), found: 2, supported: 1 });
        assert_eq!(wrong(&page), 2);
    }

    /// Bytes are shown whatever they say of themselves, each of them once.
    #[test]
    fn every_byte_is_in_one_field_however_the_bytes_are_damaged() {
        for kind in 0..=12 {
            for at in 12..EXAMPLE.len() {
                for value in [0, 1, 0x7f, 0xff] {
                    let mut bytes = EXAMPLE;
                    (bytes[16], bytes[at]) = (kind, value);
                    let fields = of_frame(&raw(&bytes));
                    let shown: Vec<u8> =
                        fields.iter().flat_map(|field| field.bytes.to_vec()).collect();
                    assert_eq!(shown, bytes, "kind {kind}, {value} at {at}");
                }
            }
        }
    }
    #[test]
    fn a_body_that_its_kind_does_not_explain_is_shown_as_one() {
        for (kind, table, unexplained) in [(5, 1, 11), (1, 1, 11), (3, 4, 3), (11, 1, 3)] {
            let mut bytes = EXAMPLE;
            (bytes[16], bytes[48]) = (kind, table);
            let fields = of_frame(&raw(&bytes));
            let body = fields.iter().find(|field| field.name == "body");
            assert_eq!(body.map(|field| field.bytes.len()), Some(unexplained), "kind {kind}");
        }
    }
}
