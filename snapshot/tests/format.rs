//! The example of FORMAT.md, byte for byte: a file that was written once is read for ever.
#![expect(clippy::unwrap_used, reason = "in a test an error is a failure")]

use std::io::{Read, Write};

use kontiki_disk::MemoryDisk;
use kontiki_snapshot::{Header, Place, Store};

fn example() -> Vec<u8> {
    let format = include_str!("../FORMAT.md");
    let (_, example) = format.split_once("## Example").unwrap();
    let text = example.split("```").nth(1).unwrap();
    let digits: Vec<u8> = text.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let digit = |byte: u8| u8::try_from(char::from(byte).to_digit(16).unwrap()).unwrap();
    digits.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

#[test]
fn the_example_is_what_is_written_and_what_is_read() {
    let disk = MemoryDisk::new();
    let mut store = Store::open(&disk, "images", None).unwrap();
    let place = Place { index: 3, term: 2 };
    let header = Header { cluster: 10, log: 1, place, membership: b"m".to_vec() };
    let mut writer = store.create(header.clone()).unwrap();
    writer.write_all(b"hello").unwrap();
    let finished = writer.finish().unwrap();
    let image = store.publish(finished).unwrap();
    assert_eq!(image.name(), "0000000000000003-0000000000000002.image");
    let mut written = vec![0; usize::try_from(image.bytes()).unwrap()];
    image.read_piece(0, &mut written).unwrap();
    assert_eq!(written, example());

    let other = MemoryDisk::new();
    let mut store = Store::open(&other, "images", None).unwrap();
    let mut receiving = store.receive(image.offer(), 1000).unwrap();
    receiving.append(0, &example()).unwrap();
    let finished = receiving.finish().unwrap();
    let image = store.publish(finished).unwrap();
    assert_eq!(*image.header(), header);
    let mut bytes = String::new();
    image.read().read_to_string(&mut bytes).unwrap();
    assert_eq!(bytes, "hello");
}
